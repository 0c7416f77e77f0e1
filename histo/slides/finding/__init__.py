"""Find slides: in folders, by patterns, in lists, in object storage."""
