"""Export the results of a label run for other programs."""
