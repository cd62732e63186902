"""The recipe on paper, and what runs, held against it."""
