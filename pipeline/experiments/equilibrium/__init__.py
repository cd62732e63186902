"""Where the norm of scale invariant weights settles under SGD with weight decay, and how long that takes."""
