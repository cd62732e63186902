"""Text to tokenizer to shards. Knows neither torch nor deepspeed."""
