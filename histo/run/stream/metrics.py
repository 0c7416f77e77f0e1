"""Count slides, tiles, seconds and bytes, for Ray's Prometheus metrics."""

from ray.util.metrics import Counter


class Metrics:
    """Counters of a run, kept by its driver; Ray exports them on every node's metrics port as `ray_histo_..._total`."""

    def __init__(self) -> None:
        self._slides = Counter("histo_slides", "slides that were settled", ("status",))
        self._tiles = Counter("histo_tiles", "tiles of regions that came in, also of those done again", ("status",))
        self._seconds = Counter("histo_seconds", "time of threads that read, and of networks", ("stage",))
        self._bytes = Counter("histo_bytes_read", "bytes that workers read from files while they labelled")

    def settle(self, status: str) -> None:
        """Count a slide."""
        self._slides.inc(1, {"status": status})

    def label(self, n_ok: int, n_failed: int) -> None:
        """Count the tiles of a region."""
        _add(self._tiles, n_ok, status="ok")
        _add(self._tiles, n_failed, status="read_error")

    def work(self, read_s: float, network_s: float, bytes_read: int) -> None:
        """Count what a region took."""
        _add(self._seconds, read_s, stage="reading")
        _add(self._seconds, network_s, stage="network")
        _add(self._bytes, bytes_read)


def _add(counter: Counter, value: float, **tags: str) -> None:
    if value > 0:  # Ray refuses nothing
        counter.inc(value, tags)
