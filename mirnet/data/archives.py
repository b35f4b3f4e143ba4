"""Untrusted zip files: names, sizes and headers are checked before use."""

from __future__ import annotations

import lzma
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO

from mirnet.errors import DataError
from mirnet.junk import is_junk

MAX_FILE_BYTES = 2**30
"""An image file larger than this is refused."""
_MAX_RATIO = 100
_RATIO_FROM = 2**24
_MAX_DEPTH = 3
"""Zip files within zip files."""
_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
_BROKEN = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)
_OTHERS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True)
class Limits:
    """Limits of the unpacked contents of an archive, inner archives included."""

    num_files: int = 100_000
    num_bytes: int = 20 * 2**30


@dataclass(frozen=True)
class Member:
    path: PurePosixPath
    """Prefixed with the name of its archive; never absolute, never with ``..``."""
    size: int
    is_link: bool
    label: str
    _archive: zipfile.ZipFile
    _info: zipfile.ZipInfo

    def copy(self, target: Path) -> None:
        """Write the unpacked bytes to a file.

        Raises:
            DataError: damaged, or its size differs from its header.
            OSError: the file cannot be written.
        """
        with target.open("wb") as file:
            self.unpack(file)

    def unpack(self, file: IO[bytes]) -> None:
        """Write the unpacked bytes to an open file; raises as :meth:`copy`."""
        left = self.size
        for chunk in self._chunks():
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
        if left:
            raise DataError(f"{self.label}: is not of the {self.size} bytes that it declares")

    def _chunks(self) -> Iterator[bytes]:
        try:
            with self._archive.open(self._info) as stream:
                while chunk := stream.read(2**20):
                    yield chunk
        except (*_BROKEN, OSError) as error:
            raise DataError(f"{self.label}: {error}") from error


class Unpacking:
    """All archives of one source, which share the limits; ``stack`` closes the opened files."""

    def __init__(self, limits: Limits, stack: ExitStack) -> None:
        self._limits, self._stack = limits, stack
        self._num_files = self._num_bytes = self._num_packed = 0

    def members(self, file: Path) -> Iterator[Member]:
        """The files of an archive and of the archives in it; junk and folders are left out.

        Raises:
            DataError: damaged, encrypted, dangerous or beyond the limits; names the entry.
        """
        self._num_packed += file.stat().st_size
        yield from self._members(file, PurePosixPath(), str(file), depth=1)

    def _members(
        self, file: Path | IO[bytes], prefix: PurePosixPath, label: str, *, depth: int
    ) -> Iterator[Member]:
        if depth > _MAX_DEPTH:
            raise DataError(f"{label}: zip files {depth} deep: unpack it and give the folder")
        archive = self._open(file, label)
        infos = archive.infolist()
        self._count(infos, label)
        _check_overlap(infos, label)
        seen: set[PurePosixPath] = set()
        for info in infos:
            member = _member(archive, info, prefix, label)
            if member is None:
                continue
            if member.path in seen:
                raise DataError(f"{label}: {info.filename!r} is in it twice: refused")
            seen.add(member.path)
            if member.path.suffix.lower() == ".zip" and not member.is_link:
                yield from self._nested(member, depth=depth)
            else:
                yield member

    def _nested(self, member: Member, *, depth: int) -> Iterator[Member]:
        # extracted to a file, since seeking in a compressed one unpacks it each time
        file = tempfile.TemporaryFile(prefix="mirnet-import-")  # noqa: SIM115 - the stack closes it
        self._stack.enter_context(file)
        member.unpack(file)
        inner = member.path.with_suffix("")
        yield from self._members(file, inner, member.label, depth=depth + 1)

    def _open(self, file: Path | IO[bytes], label: str) -> zipfile.ZipFile:
        try:
            return self._stack.enter_context(zipfile.ZipFile(file))
        except _BROKEN as error:
            raise DataError(f"{label}: not a zip file, or a damaged one: {error}") from error

    def _count(self, infos: list[zipfile.ZipInfo], label: str) -> None:
        self._num_files += len(infos)
        if self._num_files > self._limits.num_files:
            raise DataError(
                f"{label}: more than {self._limits.num_files} files are in it: "
                "--max-files takes more"
            )
        self._num_bytes += sum(info.file_size for info in infos)
        _check_ratio(self._num_bytes, self._num_packed, label)
        if self._num_bytes > self._limits.num_bytes:
            raise DataError(
                f"{label}: unpacks to more than {self._limits.num_bytes / 2**30:g} GiB: "
                "--max-gib takes more"
            )


def is_archive(path: Path) -> bool:
    """Whether a file is a zip file, by its end or by its name."""
    return zipfile.is_zipfile(path) or path.suffix.lower() == ".zip"


def kind_of(path: Path) -> str:
    """Another known kind of archive, for a message."""
    start = path.open("rb").read(8) if path.is_file() else b""
    kind = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)
    return f" but {kind}: unpack it and give the folder" if kind else ""


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, prefix: PurePosixPath, label: str
) -> Member | None:
    """The member of an entry; none for folders and junk."""
    # some archives use the separators of Windows
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise DataError(f"{label}: {info.filename!r} leads out of the archive: refused")
    hidden = any(part.startswith(".") for part in path.parts)
    if info.is_dir() or not path.parts or hidden or is_junk(path.parts):
        return None
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
        return None
    if info.flag_bits & _ENCRYPTED:
        raise DataError(f"{label}: {info.filename!r} is encrypted: unpack it and give the folder")
    if info.file_size > MAX_FILE_BYTES and path.suffix.lower() != ".zip":
        raise DataError(
            f"{label}: {info.filename!r} unpacks to {info.file_size} bytes, "
            f"more than {MAX_FILE_BYTES}: refused"
        )
    _check_ratio(info.file_size, info.compress_size, f"{label}: {info.filename!r}")
    return Member(
        path=prefix / path,
        size=info.file_size,
        is_link=kind == stat.S_IFLNK,
        label=f"{label}: {path}",
        _archive=archive,
        _info=info,
    )


def _check_ratio(unpacked: int, packed: int, label: str) -> None:
    """Photographs are hardly compressible; files compressed to 1 % are a decompression bomb."""
    ratio = unpacked / max(1, packed)
    if unpacked > _RATIO_FROM and ratio > _MAX_RATIO:
        raise DataError(
            f"{label}: unpacks to {unpacked} bytes, {ratio:.0f} times its size: "
            "refused as a decompression bomb"
        )


def _check_overlap(infos: list[zipfile.ZipInfo], label: str) -> None:
    """Files that share packed bytes are a form of decompression bomb."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for one, other in pairwise(ordered):
        if other.header_offset < one.header_offset + _LOCAL_HEADER + one.compress_size:
            raise DataError(
                f"{label}: {one.filename!r} and {other.filename!r} overlap: refused as a "
                "decompression bomb"
            )
