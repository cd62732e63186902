"""python -m pipeline VERB: one file a verb, its arguments and its call."""
