"""What happens to text: cleaning, sentences, language, duplicates, tokenizer."""
