"""Draw pictures of the slides of a label run."""
