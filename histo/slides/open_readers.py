"""The readers that a worker keeps open from one region to the next."""

import threading
from collections import OrderedDict

from histo.slides.readers.base import Reader
from histo.slides.readers.tiff import DirectReader
from histo.slides.slide import Slide, open_reader

_SLIDES = 4
"""Slides whose shared readers are kept; the regions of a slide follow each other, and more would only hold files."""


class Readers:
    """Opens slides for the threads that read them: a direct reader once for all threads, others for each of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: OrderedDict[str, Reader] = OrderedDict()
        self._own = threading.local()

    def get(self, slide: Slide, name: str) -> Reader:
        """Return a reader of a slide for this thread.

        Args:
            slide: Its description.
            name: Of the reader, as planning chose it.

        Raises:
            SlideError: If the slide cannot be opened.
        """
        return self._get_shared(slide) if name == DirectReader.name else self._get_own(slide, name)

    def _get_shared(self, slide: Slide) -> Reader:
        with self._lock:
            if slide.path not in self._shared:
                self._shared[slide.path] = open_reader(slide, DirectReader.name)
            self._shared.move_to_end(slide.path)
            if len(self._shared) > _SLIDES:
                self._shared.popitem(last=False)  # closed when the last thread that reads with it lets it go
            return self._shared[slide.path]

    def _get_own(self, slide: Slide, name: str) -> Reader:
        last: tuple[str, Reader | None] = getattr(self._own, "last", ("", None))
        path, reader = last
        if path != slide.path:
            if reader is not None:
                reader.close()
            self._own.last = ("", None)
            reader = open_reader(slide, name)
            self._own.last = (slide.path, reader)
        assert reader is not None, "a path and its reader are kept together"
        return reader
