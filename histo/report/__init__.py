"""Pictures and lines for people."""
