"""Commands that mount file systems of their own."""

import os

OWN_MOUNTS = ("unshare", "--mount", *(() if os.getuid() == 0 else ("--user", "--map-root-user")))
"""Begins a command that may mount file systems which nobody else sees."""
