"""The science, one command each: `python -m pipeline experiment NAME`. One folder an experiment, and none imports another."""
