"""Keep decoded file blocks at the border of one reading for its neighbours."""

import threading
from collections import OrderedDict

from histo.resample import Pixels

Key = tuple[int, ...]
"""Level, row and column of a file block, and the ratios by which it is averaged, across and down."""
MOST_BYTES = 2**25
"""Of the pixels that are kept. The borders within a region of 16 x 16 tiles of 224 px have 6 to 28 MB of them, as a
rule."""


class KeptBlocks:
    """The file blocks that were decoded last at the border of what was read. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Key, Pixels] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> Pixels | None:
        """Return the pixels of a block, which nobody may write to, if they are there."""
        with self._lock:
            return self._blocks.get(key)

    def put(self, key: Key, pixels: Pixels) -> None:
        """Keep the pixels of a block, and let go of those that were put first where they are too many."""
        pixels.setflags(write=False)
        with self._lock:
            if key in self._blocks:  # another thread was as fast
                return
            self._blocks[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > MOST_BYTES:
                _, oldest = self._blocks.popitem(last=False)
                self._bytes -= oldest.nbytes
