"""Settings of scores. Imports nothing heavy."""

RESAMPLES = 1000
"""Draws behind an interval, where nothing else is asked for."""
