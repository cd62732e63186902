"""SGD + weight decay + relative global clipping, LAMB and AdamW, with norms that are global over all ranks."""
