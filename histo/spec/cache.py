"""The settings of copies of remote files."""

from pydantic import Field

from histo.remote.cache import Cache
from histo.spec.base import AbsolutePath, Spec


class CacheSpec(Spec):
    """Where each node keeps copies of files of object storage and web servers while they are read, and how many."""

    folder: AbsolutePath | None = None
    """Folder on each node, not a shared one; default: one in the system's folder of temporary files."""
    gib: float | None = Field(default=None, gt=0)
    """Size of all copies on a node (GiB); default: half of what is free there."""

    def of(self, patience_s: float) -> Cache:
        """Return the cache, which tries for so many seconds what cannot be had."""
        return Cache(self.folder, None if self.gib is None else int(self.gib * 2**30), patience_s)
