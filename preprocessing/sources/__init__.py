"""Where documents come from: local files, datasets of the Hugging Face hub, and the built-in corpus."""
