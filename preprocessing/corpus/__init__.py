"""The on-disk format of a corpus: manifest, reader, writer."""
