"""Archives of people one does not know: each danger is refused before anything is written."""

from __future__ import annotations

import errno
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mirnet.data.archives import Limits
from mirnet.data.importer import import_data
from mirnet.data.layout import find_pairs
from mirnet.errors import DataError

MIB = 2**20


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pairs(count: int, data: bytes = b"x", folder: str = "") -> dict[str, bytes]:
    return {f"{folder}{side}/{n}.png": data for side in ("low", "high") for n in range(count)}


def family() -> bytes:
    """60 members, none of which is a bomb by itself."""
    return zip_of(pairs(30, bytes(MIB)))


def nested_family() -> bytes:
    inner = zip_of(pairs(1, bytes(8 * MIB)))
    return zip_of({f"{n}.zip": inner for n in range(20)}, zipfile.ZIP_STORED)


def deep() -> bytes:
    data = zip_of(pairs(1))
    for _ in range(4):
        data = zip_of({"inner.zip": data})
    return data


def central(data: bytes, offset: int, value: int, kind: str = "<I") -> bytes:
    """An archive whose first central header says something else at an offset."""
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + struct.pack(kind, value) + data[at + struct.calcsize(kind) :]


def overlapping() -> bytes:
    """The second header leads to the bytes of the first."""
    data = zip_of(pairs(1, bytes(1000)), zipfile.ZIP_STORED)
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


def twice() -> bytes:
    buffer = io.BytesIO(zip_of(pairs(1)))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("low/0.png", b"another")
    return buffer.getvalue()


DANGERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "family": (family, "decompression bomb"),
    "nested family": (nested_family, "decompression bomb"),
    "deep": (deep, "zip files 4 deep"),
    "overlapping": (overlapping, "overlap"),
    "larger than it says": (lambda: central(zip_of(pairs(1, b"a" * 90)), 24, 10), "low/0.png"),
    "smaller than it says": (lambda: central(zip_of(pairs(1, b"a" * 90)), 24, 99), "low/0.png"),
    "encrypted": (lambda: central(zip_of(pairs(1)), 8, 1, "<H"), "encrypted"),
    "unknown method": (lambda: central(zip_of(pairs(1)), 10, 9, "<H"), "low/0.png"),
    "twice": (twice, "twice"),
    "leads out": (lambda: zip_of(pairs(1) | {"../x.png": b"x"}), "leads out"),
    "leads out within": (
        lambda: zip_of({"a.zip": zip_of(pairs(1) | {"../x.png": b"x"})}),
        "leads out",
    ),
    "damaged within": (lambda: zip_of({"a.zip": zip_of(pairs(1))[:-30]}), "a.zip: not a zip"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(50), "not a zip file but gzip"),
    "cut": (lambda: zip_of(pairs(3))[:-40], "not a zip file"),
}


@pytest.mark.parametrize("danger", DANGERS)
def test_danger_is_refused(danger: str, tmp_path: Path) -> None:
    make, message = DANGERS[danger]
    path = tmp_path / ("set.gz" if danger == "gzip" else "set.zip")
    path.write_bytes(make())
    with pytest.raises(DataError, match=message):
        import_data(path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_zip_in_a_zip(tmp_path: Path) -> None:
    splits = {name: zip_of(pairs(2, folder=f"{name}/")) for name in ("our485", "eval15")}
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of({f"LOL/{name}.zip": data for name, data in splits.items()}))
    import_data(path, tmp_path / "data")
    assert len(find_pairs(tmp_path / "data")) == 4


def test_names_of_inner_zips_count_as_folders(tmp_path: Path) -> None:
    sides = {f"{side}.zip": zip_of({"1.png": b"x"}) for side in ("low", "high")}
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of({"train.zip": zip_of(sides)} | {"__MACOSX/._train.zip": b"junk"}))
    plan = import_data(path, tmp_path / "data")
    assert [f"{pair.split}/{pair.name}" for pair in plan.pairs] == ["our485/1.png"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of({"a.zip": zip_of(pairs(1))}))

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(DataError, match=r"set\.zip: No space left"):
        import_data(path, tmp_path / "data")


def test_limits_can_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of(pairs(5, bytes(range(256)) * 100), zipfile.ZIP_STORED))
    for limits, option in ((Limits(num_files=9), "--max-files"), (Limits(num_bytes=10**5), "GiB")):
        with pytest.raises(DataError, match=option):
            import_data(path, tmp_path / "data", limits=limits)
    plan = import_data(path, tmp_path / "data", limits=Limits(num_files=10, num_bytes=10**6))
    assert len(plan.pairs) == 5


def test_limits_hold_for_all_archives_together(tmp_path: Path) -> None:
    inner = {f"{side}.zip": zip_of({"1.png": bytes(range(256)) * 40}) for side in ("low", "high")}
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of(inner))
    with pytest.raises(DataError, match="GiB"):
        import_data(path, tmp_path / "data", limits=Limits(num_bytes=15_000))
    with pytest.raises(DataError, match="more than 3 files"):
        import_data(path, tmp_path / "data", limits=Limits(num_files=3))


def test_as_many_files_as_published_pass(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(zip_of(pairs(500), zipfile.ZIP_STORED))
    assert len(import_data(path, tmp_path / "data").pairs) == 500
