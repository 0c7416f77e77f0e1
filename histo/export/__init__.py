"""Files of a label run for other programs."""
