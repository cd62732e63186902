"""A build: plan, independent slices, one end."""
