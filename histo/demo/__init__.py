"""A demonstration on fabricated slides of which it is known what is where."""
