from pathlib import Path

import fsspec.core
import pytest

from histo.remote.location import connect, scheme, shown, steps


@pytest.mark.parametrize("text", ["/data/a.svs", "a.svs", "c:\\a.svs", "//host/a", "a://", ":", "1s3://b/a"])
def test_paths_are_told_from_uris(text: str) -> None:
    assert (scheme(text) is None) == (text != "a://")


def test_what_may_be_a_password_is_not_shown() -> None:
    assert shown("https://user:secret@host:8080/a/b.svs?sig=secret#secret") == "https://host:8080/a/b.svs"
    assert shown("s3://bucket/a?b#c.svs") == "s3://bucket/a?b#c.svs", "these are parts of a key"


def test_components_are_what_people_read() -> None:
    assert steps("https://host/a%20b/c.svs?x=/y") == ("host", "a b", "c.svs")
    assert steps("s3://bucket//a%20b.svs") == ("bucket", "a%20b.svs")


def test_an_unknown_kind_of_storage_is_said_in_one_line() -> None:
    with pytest.raises(OSError, match="protocol not known: zz") as raised:
        connect("zz://bucket/a.svs")

    assert raised.value.filename == "zz://bucket/a.svs"


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)

    with pytest.raises(OSError, match=r"pip install 'histo\[s3\]'"):
        connect("s3://bucket/a.svs")


def test_a_local_path_has_no_kind(tmp_path: Path) -> None:
    assert scheme(str(tmp_path)) is None
