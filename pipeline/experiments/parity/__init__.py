"""SGD beside AdamW on the same batches: held-out losses at equal tokens, with as many trials on either side."""
