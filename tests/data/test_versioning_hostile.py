"""A remote that somebody changed: an error of one line, and nothing written outside or inside."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirnet.config import Settings
from mirnet.data import listing
from mirnet.data.versioning import add, data_version, init_workspace, pull, push, read_pin
from mirnet.errors import DataError
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server

Listing = list[dict[str, Any]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A DVC workspace with a small pinned folder."""
    root = tmp_path / "here" / "data"
    (root / "low").mkdir(parents=True)
    (root / "pairs.csv").write_text("a,b\n")
    (root / "low" / "1.png").write_bytes(b"first")
    (root / "low" / "2.png").write_bytes(b"second")
    init_workspace(root.parent)
    add(root)
    return root


@pytest.fixture
def other(other: Path) -> Path:
    """Another workspace with the same pin and no data, beside a file of the trainer's."""
    (other.parent / "train.py").write_text("ours")
    return other


class Remote:
    """Where the workspace pushed to, and a way to change what lies there."""

    def __init__(self, name: str, url: str, endpoint: str | None = None) -> None:
        self.place: dict[str, Any] = {"remote": name, "endpoint_url": endpoint}
        self._store = open_store(url, Settings(s3_endpoint_url=endpoint))

    def put(self, digest: str, content: bytes) -> None:
        self._store.put(f"files/md5/{digest[:2]}/{digest[2:]}", content, content_type="x/y")

    def get(self, digest: str) -> bytes:
        return self._store.get(f"files/md5/{digest[:2]}/{digest[2:]}").data


@pytest.fixture
def disk(workspace: Path, other: Path, tmp_path: Path) -> Remote:
    store = tmp_path / "store"
    store.mkdir()
    for root in (workspace, other):
        config = root.parent / ".dvc/config.local"
        config.write_text(f"['remote \"disk\"']\n    url = {store}\n")
    return Remote("disk", str(store))


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Remote:
    if request.param == "folder":
        found: Remote = request.getfixturevalue("disk")
        return found
    server: S3Server = request.getfixturevalue("server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://data/{request.node.name}"
    return Remote(url, url, server.endpoint_url)


def digest_of(root: Path) -> str:
    pin = read_pin(root)
    assert pin is not None
    return pin.digest


def state(folder: Path) -> dict[str, bytes]:
    """Every file around the data, DVC's own bookkeeping aside."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in files
        if ".dvc/tmp" not in str(p) and ".dvc/cache" not in str(p)
    }


def test_an_object_with_another_content_is_refused(
    workspace: Path, other: Path, remote: Remote
) -> None:
    push(workspace, **remote.place)
    first = hashlib.md5(b"first").hexdigest()
    remote.put(first, b"forged")
    before = state(other.parent)
    for _ in range(2):  # the second time it would come from the cache
        with pytest.raises(DataError, match=r"1 of 3 files, such as low/1\.png") as caught:
            pull(other, **remote.place)
        assert "\n" not in str(caught.value)
        assert state(other.parent) == before
    assert first[2:] not in {p.name for p in (other.parent / ".dvc/cache").rglob("*")}
    remote.put(first, b"first")
    pull(other, **remote.place)
    assert data_version(other).status == "clean"


def test_a_listing_with_another_content_is_refused(
    workspace: Path, other: Path, remote: Remote
) -> None:
    push(workspace, **remote.place)
    digest = digest_of(workspace)
    good = remote.get(digest)
    forged: Listing = json.loads(good)
    forged[0]["relpath"] = "../train.py"
    remote.put(digest, json.dumps(forged).encode())
    before = state(other.parent)
    for _ in range(2):
        with pytest.raises(DataError, match=f"{digest[2:]}: is not the pinned listing"):
            pull(other, **remote.place)
        assert state(other.parent) == before
    # pushing again would have left it there without a word
    with pytest.raises(DataError, match="delete it and push again"):
        push(workspace, **remote.place)
    remote.put(digest, good)
    pull(other, **remote.place)
    assert data_version(other).status == "clean"


def pinned(other: Path, remote: Remote, entries: Listing | bytes) -> None:
    """A foreign data set whose pin and remote agree with each other."""
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    digest = f"{hashlib.md5(content).hexdigest()}.dir"
    remote.put(digest, content)
    remote.put(hashlib.md5(b"forged").hexdigest(), b"forged")
    out = {"md5": digest, "hash": "md5", "path": "data"}
    (other.parent / "data.dvc").write_text(yaml.safe_dump({"outs": [out]}))


FORGED = hashlib.md5(b"forged").hexdigest()


@pytest.mark.parametrize(
    "path",
    [
        "../train.py",
        "low/../../train.py",
        "..",
        "/tmp/planted",
        "//host/share",
        "..\\train.py",
        "low\\..\\..\\train.py",
        "C:train.py",
        "C:/train.py",
        "nul\0byte",
        "new\nline",
        "./train.py",
        "low//1.png",
        "",
        3,
        None,
        ["a"],
    ],
)
def test_a_name_that_leads_out_is_refused_though_its_digest_is_right(path: object) -> None:
    content = json.dumps([{"md5": FORGED, "relpath": path}]).encode()
    digest = f"{hashlib.md5(content).hexdigest()}.dir"
    with pytest.raises(DataError, match="leads out of the folder"):
        listing.parse_listing(content, digest, place="x")


@pytest.mark.parametrize(
    "entries",
    [
        [{"md5": "../../../train.py", "relpath": "a"}],
        [{"md5": FORGED.upper(), "relpath": "a"}],
        [{"md5": f"{FORGED}.dir", "relpath": "a"}],
        [{"relpath": "a"}],
        [{"md5": FORGED, "relpath": "a"}, {"md5": FORGED, "relpath": "a"}],
        [{"md5": FORGED, "relpath": "a/b/c"}, {"md5": FORGED, "relpath": "a"}],
        ["a"],
        {"a": 1},
        3,
        b"not json",
        b"\xff\xfe",
        b"[" * 200_000,
    ],
)
def test_what_is_no_listing_is_refused(entries: Any) -> None:
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    digest = f"{hashlib.md5(content).hexdigest()}.dir"
    with pytest.raises(DataError, match=r"^x: "):
        listing.parse_listing(content, digest, place="x")


@pytest.mark.parametrize("path", ["../train.py", "ABSOLUTE"])
def test_a_foreign_data_set_writes_nothing_outside(
    other: Path, remote: Remote, path: str, tmp_path: Path
) -> None:
    planted = tmp_path / "planted"
    name = str(planted) if path == "ABSOLUTE" else path
    pinned(other, remote, [{"md5": FORGED, "relpath": name}])
    before = state(other.parent)
    with pytest.raises(DataError, match="leads out of the folder"):
        pull(other, force=True, **remote.place)
    assert state(other.parent) == before
    assert not planted.exists()


def test_a_link_in_the_folder_is_not_followed(
    workspace: Path, other: Path, disk: Remote, tmp_path: Path
) -> None:
    push(workspace, **disk.place)
    outside = tmp_path / "outside"
    outside.mkdir()
    other.mkdir()
    (other / "low").symlink_to(outside)
    with pytest.raises(DataError, match="low: a link out of"):
        pull(other, force=True, **disk.place)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda out: out.update(md5="../../../train.py"),
        lambda out: out.update(md5=out["md5"].removesuffix(".dir")),
        lambda out: out.update(md5=3),
    ],
)
def test_a_pin_that_is_no_digest_is_refused(
    workspace: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    pin = workspace.parent / "data.dvc"
    content = yaml.safe_load(pin.read_text())
    change(content["outs"][0])
    pin.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=r"data\.dvc: not a \.dvc file"):
        data_version(workspace)
    with pytest.raises(DataError, match=r"data\.dvc: not a \.dvc file"):
        pull(workspace, remote="file:///nowhere")


def test_a_pin_of_dvc_2_is_refused(workspace: Path) -> None:
    pin = workspace.parent / "data.dvc"
    content = yaml.safe_load(pin.read_text())
    del content["outs"][0]["hash"]
    pin.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="dvc cache migrate"):
        pull(workspace, remote="file:///nowhere")


def test_a_cache_that_was_poisoned_before_heals(workspace: Path, other: Path, disk: Remote) -> None:
    """By a pull of an older version, say: DVC itself takes a read-only file on trust."""
    push(workspace, **disk.place)
    digest = digest_of(workspace)
    first = hashlib.md5(b"first").hexdigest()
    forged = [{"md5": first, "relpath": "../train.py"}]
    for name, content in ((digest, json.dumps(forged).encode()), (first, b"forged")):
        kept = other.parent / ".dvc/cache/files/md5" / name[:2] / name[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
        kept.chmod(0o444)
    pull(other, **disk.place)
    assert data_version(other).status == "clean"
    assert (other.parent / "train.py").read_text() == "ours"


def test_status_does_not_believe_a_damaged_cache(workspace: Path) -> None:
    digest = digest_of(workspace)
    kept = workspace.parent / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    kept.chmod(0o644)
    kept.write_bytes(b"[" * 100_000)
    (workspace / "new.txt").write_text("x")
    version = data_version(workspace)
    assert (version.status, version.changed) == ("modified", ())


def test_the_command_says_it_in_one_line(workspace: Path, other: Path, disk: Remote) -> None:
    push(workspace, **disk.place)
    disk.put(hashlib.md5(b"second").hexdigest(), b"forged")
    done = subprocess.run(
        [sys.executable, "-m", "mirnet.cli", "data", "pull", "--remote=disk"],
        cwd=other.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "low/2.png" in done.stderr
    assert not other.exists()
