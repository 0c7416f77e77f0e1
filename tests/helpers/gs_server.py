"""A server on loopback that speaks Google Cloud Storage."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import gcsfs
import pytest
from gcp_storage_emulator.server import create_server


@contextmanager
def gs_server(bucket: str) -> Iterator[None]:
    """Serve a bucket from memory, and have this process use it.

    The server takes no notice of conditions, as Google's does: what is created takes the place of what was there.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
            patch.setenv("FSSPEC_GS_TOKEN", "anon")
            patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            gcsfs.GCSFileSystem.clear_instance_cache()
            yield
    finally:
        server.stop()
