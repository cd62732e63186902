"""MNLI and SQuAD: files to examples, examples to tokens with exact offsets, predictions to the official figures."""
