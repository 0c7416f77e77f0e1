"""Evaluate a bundle on labelled cases."""
