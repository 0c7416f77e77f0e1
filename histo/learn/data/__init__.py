"""Labelled cases: sources, inspection of images, subsets, splits, leaks."""
