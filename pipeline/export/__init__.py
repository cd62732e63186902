"""A run's model in the format of Hugging Face's transformers: weights, code, tokenizer, card."""
