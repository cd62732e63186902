"""One command for a person with a GPU: everything of this program that a CPU cannot show. docs/gpu.md says what it does."""
