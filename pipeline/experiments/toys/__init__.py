"""The slides' two examples, and the equivalences of SGD with weight decay, in float64."""
