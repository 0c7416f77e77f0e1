"""The converted form of a bundle: trace, compile, compare, record."""
