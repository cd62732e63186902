"""A run directory: its layout, records, metrics and summary."""
