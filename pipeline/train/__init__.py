"""A run from its start to its end: start, loop, evaluation, dry run."""
