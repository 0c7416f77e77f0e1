"""Pictures of a labelled slide, and a pyramid of its classes."""
