"""An S3 server on loopback, and a proxy before it that drops connections, is slow, or says that it is busy."""

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import s3fs
from moto.server import ThreadedMotoServer

BUCKET = "slides"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[int]:
    """Serve S3 from memory; yields the port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield port
    finally:
        server.stop()


def use_server(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have this process, and those that it starts, use a server."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


def have_bucket() -> None:
    """Make the bucket; all servers of a process have the same ones."""
    files = s3fs.S3FileSystem()
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)


def upload(folder: Path, prefix: str) -> None:
    """Copy a folder to the bucket."""
    files = s3fs.S3FileSystem()
    have_bucket()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.put_file(str(path), f"{BUCKET}/{prefix}/{path.relative_to(folder).as_posix()}")


Trouble = Callable[[int, str], str]
"""Says what happens to a request, by its number and its method: `ok`, `drop`, `half`, `slow`, `busy`."""


@contextmanager
def troubled(port: int, trouble: Trouble) -> Iterator[int]:
    """Pass requests on to a server, some of them badly; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            server.requests += 1  # type: ignore[attr-defined] # ours
            what = trouble(server.requests, self.command)  # type: ignore[attr-defined] # ours
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if what == "drop":
                self.close_connection = True
                return
            if what == "busy":
                self._answer(503, [("Content-Length", "0")], b"")
                return
            if what == "slow":
                time.sleep(0.5)
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            left_out = ("transfer-encoding", "connection", "content-length", "date", "server")
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in left_out]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            headers.append(("Content-Length", length or "0"))
            self._answer(answer.status, headers, content[: len(content) // 2] if what == "half" else content)
            self.close_connection |= what == "half"
            connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 -- http.server's names

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.requests = 0  # type: ignore[attr-defined] # ours
        yield server.server_address[1]


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    """Have a server answer while the block lasts."""
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
