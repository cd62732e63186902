"""Why Adam was needed, and is not here: rare tokens under SGD, under AdamW, and with rows that count by their direction."""
