"""The configuration of a run: its types, its recipes, and what DeepSpeed is told of it."""
