"""Proof of a built corpus: checks with what was expected and what was found, as a table and as a page."""
