"""Encoders, heads and their initialisation."""
