"""Shards to a trained, evaluated model."""
