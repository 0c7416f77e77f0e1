"""Demonstration on fabricated slides with a known truth."""
