"""The contract that both stores keep, and what only one of them can get wrong."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from mirnet.atomic import replacing
from mirnet.config import Settings
from mirnet.errors import StorageError, UsageError
from mirnet.storage.arrow import open_filesystem
from mirnet.storage.places import open_source, open_store
from mirnet.storage.s3server import S3Server
from mirnet.storage.s3session import connection, make_client
from mirnet.storage.store import KeyRefused, ObjectMissing
from tests.batch.samples import picture


def test_put_get_head_delete(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    assert store.head("a/b.png") is None
    with pytest.raises(ObjectMissing, match=r"b\.png"):
        store.get("a/b.png")
    version = store.put("a/b.png", b"one", metadata={"mirnet-x": "1"})
    head, blob = store.head("a/b.png"), store.get("a/b.png")
    assert head is not None
    assert (head.version, head.size, dict(head.metadata)) == (version, 3, {"mirnet-x": "1"})
    assert (blob.data, blob.version, dict(blob.metadata)) == (b"one", version, {"mirnet-x": "1"})
    assert 0 <= head.age_s < 30
    store.put("a/b.png", b"two")
    again = store.head("a/b.png")
    assert again is not None
    assert again.version != version
    assert dict(again.metadata) == {}
    store.delete("a/b.png")
    store.delete("a/b.png")
    assert store.head("a/b.png") is None


def test_conditional_writes(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    assert store.put("k", b"x", replaces="0-0") is None
    assert store.put_if_absent("k", b"one")
    assert not store.put_if_absent("k", b"two")
    head = store.head("k")
    assert head is not None
    assert store.put("k", b"three", replaces="0-0") is None
    assert store.put("k", b"four", replaces=head.version) is not None
    assert store.put("k", b"five", replaces=head.version) is None
    assert store.get("k").data == b"four"


def test_of_many_writers_one_wins(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    won: list[int] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        if store.put_if_absent("k", bytes([number]), metadata={"mirnet-n": str(number)}):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    blob = store.get("k")
    assert (blob.data, dict(blob.metadata)) == (bytes(won), {"mirnet-n": str(won[0])})


def test_list_and_child(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    assert list(store.list()) == []
    keys = {"a.png", "a/b.png", "a-b.png", "b/c/d.png", "b/c.png"}
    for key in keys:
        store.put(key, key.encode())
    listed = {info.key: info for info in store.list()}
    assert set(listed) == keys
    assert {info.key for info in store.list("b/")} == {"b/c/d.png", "b/c.png"}
    child = store.child("b")
    assert {info.key for info in child.list()} == {"c/d.png", "c.png"}
    assert child.get("c.png").data == b"b/c.png"
    for key, info in listed.items():
        head = store.head(key)
        assert head is not None
        assert (info.version, info.size) == (head.version, head.size)
        assert abs(info.modified - time.time()) < 60


def test_copies_keep_bytes_and_take_metadata(places: tuple[str, str]) -> None:
    source, target = (open_store(place, Settings()) for place in places)
    source.put("a.png", b"data")
    target.copy_from(source, "a.png", "q/a.png", metadata={"mirnet-reason": "empty"})
    blob = target.get("q/a.png")
    assert (blob.data, dict(blob.metadata)) == (b"data", {"mirnet-reason": "empty"})


def test_copies_cross_kinds_of_stores(s3: str, tmp_path: Path) -> None:
    remote, local = open_store(s3, Settings()), open_store(str(tmp_path), Settings())
    large = bytes(range(256)) * 4 * 10_000  # 10 MB: more than one part
    remote.put("a.png", large)
    local.put("b.png", large + b"!")
    local.copy_from(remote, "a.png", "a.png", metadata={"mirnet-x": "1"})
    remote.copy_from(local, "b.png", "b.png", metadata={"mirnet-x": "2"})
    assert local.get("a.png").data == large
    assert remote.get("b.png").data == large + b"!"
    assert dict(local.get("a.png").metadata) == {"mirnet-x": "1"}
    with pytest.raises(ObjectMissing):
        local.copy_from(remote, "gone", "c.png", metadata={})
    with pytest.raises(ObjectMissing):
        remote.copy_from(remote, "gone", "c.png", metadata={})
    assert dict(remote.get("b.png").metadata) == {"mirnet-x": "2"}


def test_more_than_one_page_of_keys(s3: str) -> None:
    store = open_store(s3, Settings())
    for number in range(1003):
        store.put(f"{number:04d}", b"")
    assert [info.key for info in store.list()] == [f"{number:04d}" for number in range(1003)]


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a\0b"])
def test_a_folder_refuses_keys_that_are_no_paths(key: str, tmp_path: Path) -> None:
    with pytest.raises(KeyRefused):
        open_store(str(tmp_path), Settings()).put(key, b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_concerns_one_key_only(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), Settings())
    store.put("a", b"x")
    with pytest.raises((KeyRefused, ObjectMissing)):
        store.get("a/b")
    with pytest.raises(KeyRefused):
        store.put("a/b", b"y")
    with pytest.raises(KeyRefused):
        store.put("n" * 300, b"y")


def test_what_a_killed_writer_left_is_invisible_and_swept(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), Settings())
    store.put("sub/a", b"x")
    left = [tmp_path / "sub" / name for name in (".mirnet-part-xyz", f".mirnet-{'0a' * 8}.part")]
    for part in left:
        part.write_bytes(b"half")
    with replacing(tmp_path / "sub" / "b") as fresh:  # of another process, which is at work
        assert [info.key for info in store.list("sub/")] == ["sub/a"]
        store.sweep()
        assert fresh.exists() and not any(part.exists() for part in left)
    assert [info.key for info in store.list("sub/")] == ["sub/a", "sub/b"]


def test_read_only_target_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode stops."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(StorageError, match=r"a: permission denied; check") as caught:
        open_store(str(tmp_path), Settings()).put("a", b"x")
    assert not caught.value.transient
    assert "\n" not in str(caught.value)


def test_addresses(s3: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        open_store("http://host/bucket", Settings())
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        open_store("s3://", Settings())
    with pytest.raises(StorageError, match="no such file or folder"):
        open_source(str(tmp_path / "nothing"), Settings())
    open_store(s3, Settings()).put("a.png", picture())
    assert open_source(f"{s3}/a.png", Settings()).only_key == "a.png"
    assert open_source(s3, Settings()).only_key is None
    assert open_store(f"{s3}/", Settings()).address("k") == f"{s3}/k"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "wrong secret key; check AWS_ACCESS_KEY_ID"),
        ("AWS_ACCESS_KEY_ID", "wrong", "unknown access key; check AWS_ACCESS_KEY_ID"),
        ("MIRNET_S3_ENDPOINT_URL", "no-scheme:1", "Invalid endpoint: no-scheme:1"),
    ],
)
def test_wrong_access_is_one_line(
    s3: str, variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=words) as caught:
        open_store(s3, Settings()).check()
    assert s3.split("/")[3] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caught.value.transient


def test_missing_bucket_and_missing_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere/a.*no such bucket; create it"):
        open_source("s3://nowhere/a", Settings())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(
        StorageError, match="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the AWS profile"
    ):
        open_source(s3, Settings())


def test_no_secret_in_messages_or_objects(s3: str, s3_server: S3Server) -> None:
    store = open_store(s3, Settings())
    with pytest.raises(ObjectMissing) as caught:
        store.get("nothing")
    assert s3_server.secret_key not in str(caught.value) + repr(vars(store))


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-central-1"}, "eu-central-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-central-1"),
        ({}, "us-east-1"),
    ],
)
def test_every_client_is_in_the_region_of_the_environment(
    variables: dict[str, str], region: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings(storage_uri="s3://bucket/runs", s3_endpoint_url="http://127.0.0.1:9")
    assert make_client(connection("s3://bucket", settings)).meta.region_name == region
    filesystem, _ = open_filesystem(settings)
    assert filesystem.region == region
