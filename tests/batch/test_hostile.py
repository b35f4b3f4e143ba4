"""A folder, and a bucket, of hostile and odd files: each has its documented fate."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row
from mirnet.config import Settings
from mirnet.images import decode
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch.hostile_files import GOOD, IGNORED, all_files
from tests.batch.samples import UNGUARDED, enhance_batch, fill, picture


def enhance(source: str, target: str) -> EnhanceResult:
    return enhance_batch(source, target, max_bad_share=1.0, **UNGUARDED)


def rows_of(target: str) -> dict[str, Row]:
    rows = list(Ledger.of_target(open_store(target, Settings())).past_runs().rows())
    assert len(rows) == len({row.input_key for row in rows})
    return {row.input_key: row for row in rows}


def test_each_file_has_its_fate(places: tuple[str, str]) -> None:
    source, target = places
    files = all_files()
    fill(source, {key: data for key, (data, _) in files.items()} | IGNORED)
    before = {info.key: info.version for info in open_store(source, Settings()).list()}
    result = enhance(source, target)
    rows = rows_of(target)
    fates = {
        key: GOOD if row.status == GOOD else f"{row.status}:{row.reason}"
        for key, row in rows.items()
    }
    expected = {
        key: fate if fate == GOOD else f"quarantined:{fate}" for key, (_, fate) in files.items()
    }
    assert fates == expected
    assert result.planned == len(files) > 60
    store = open_store(target, Settings())
    for key, (data, fate) in files.items():
        if fate == GOOD:
            was, now = decode(data, name=key), decode(store.get(key).data, name=key)
            assert now.pixels.shape == was.pixels.shape
            assert (now.format, now.pixels.dtype) == (was.format, was.pixels.dtype)
        else:
            assert store.get(f"_mirnet/quarantine/{key}").data == data
            assert store.get(f"_mirnet/quarantine/{key}.reason.txt").data == f"{fate}\n".encode()
    assert {info.key: info.version for info in open_store(source, Settings()).list()} == before


def test_special_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "folder.png").mkdir(parents=True)
    (source / "folder.png" / "inside.png").write_bytes(picture(1))
    (source / "real.png").write_bytes(picture(2))
    (source / "link.png").symlink_to(source / "real.png")
    (source / "dangling.png").symlink_to(source / "nothing")
    (source / "loop").symlink_to(source)
    (source / "new\nline.png").write_bytes(picture(3))
    (source / "back\\slash.png").write_bytes(picture(5))
    os.mkfifo(source / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(source)  # the path of a socket is short
        listener.bind("socket.png")
    Path(os.fsdecode(os.fsencode(source) + b"/latin-\xe9.png")).write_bytes(picture(4))
    result = enhance(str(source), str(target))
    fates = {key: (row.status, row.reason) for key, row in rows_of(str(target)).items()}
    assert fates == {
        "folder.png/inside.png": (GOOD, None),
        "real.png": (GOOD, None),
        "new\nline.png": (GOOD, None),
        "back\\slash.png": (GOOD, None),
        "latin-\\udce9.png": ("failed", "name-not-utf8"),
    }
    assert result.failed == 1
    assert result.passed_over == {"link": 3, "special": 2}


@pytest.mark.parametrize("key", ["../evil.png", "/etc/evil.png", "a//b.png", "a/./b.png"])
def test_keys_that_climb_out_of_a_folder_are_refused(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 allows such keys; SeaweedFS does not, so this one runs against moto."""
    for name in ("AWS_ENDPOINT_URL", "MIRNET_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="test")
        client.put_object(Bucket="test", Key=f"in/{key}", Body=picture(1))
        client.put_object(Bucket="test", Key="in/good.png", Body=picture(2))
        client.put_object(Bucket="test", Key="in/folder.png/", Body=b"")
        target = tmp_path / "deep" / "target"
        result = enhance("s3://test/in", str(target))
    assert (result.planned, result.enhanced, result.failed) == (2, 1, 1)
    assert "not a path" in (rows_of(str(target))[key].reason or "")
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")]
    assert found == ["deep/target/good.png"]


def test_a_key_of_a_kilobyte(s3: str) -> None:
    key = "/".join(["n" * 100] * 8) + ".png"
    fill(f"{s3}/in", {key: picture(1)})
    assert enhance(f"{s3}/in", f"{s3}/out").enhanced == 1
    store = open_store(f"{s3}/out", Settings())
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    assert enhance(f"{s3}/in", f"{s3}/out").enhanced == 1, "adopted by the hash of its key"
    too_long = "/".join(["n" * 100] * 10) + ".png"
    with pytest.raises(Exception, match="1 to 1024 bytes"):
        store.put(too_long, b"")
