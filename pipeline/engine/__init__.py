"""DeepSpeed: the only folder that imports it."""
