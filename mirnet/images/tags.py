"""TIFF's directories of tags, in TIFF files and EXIF blocks (TIFF 6.0, section 2).

EXIF is changed in place, so that every other byte stays: maker notes have their own offsets, and
libraries do not preserve the encodings of text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
_WIDTH, _HEIGHT = 0x0100, 0x0101
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
POINTERS = {EXIF, GPS, INTEROP}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# of BigTIFF
_BIG_SIZES = {16: 8, 17: 8, 18: 8}
# "readers should accept BYTE, SHORT, or LONG values for any unsigned integer field"
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
Order = Literal["<", ">"]
_MAX_PAGES = 1000
_LARGEST = 2**32 - 1


@dataclass(frozen=True)
class Tag:
    """One entry: ``value`` are its bytes in the order of the file, ``place`` is their offset."""

    number: int
    kind: int
    count: int
    value: bytes | memoryview
    place: int

    def integer(self, order: Order) -> int | None:
        """The first value of unsigned integers."""
        code = _INTEGERS.get(self.kind)
        if code is None or not self.value:
            return None
        return int(struct.unpack_from(order + code, self.value)[0])

    def integers(self, order: Order) -> npt.NDArray[np.int64]:
        """All values of unsigned integers."""
        code = _INTEGERS.get(self.kind)
        if code is None:
            raise ValueError(f"tag {self.number} holds no integers")
        return np.frombuffer(self.value, np.dtype(f"{order}{code}")).astype(np.int64)


@dataclass(frozen=True)
class Directory:
    """Tags by number, with the sub-directories of EXIF, GPS and interoperability."""

    tags: dict[int, Tag]
    order: Order
    children: dict[int, Directory] = field(default_factory=dict)
    next: int = 0
    place: int = 0

    def integer(self, number: int) -> int | None:
        """The value of a tag; none if it is missing or not an integer."""
        tag = self.tags.get(number)
        return None if tag is None else tag.integer(self.order)

    def integers(self, number: int) -> npt.NDArray[np.int64]:
        """The values of a tag; empty if it is missing."""
        tag = self.tags.get(number)
        return np.zeros(0, np.int64) if tag is None else tag.integers(self.order)


def byte_order(data: bytes) -> Order | None:
    """The byte order of a TIFF structure; none if it is not one."""
    if data[:4] in (b"II*\0", b"II+\0"):
        return "<"
    return ">" if data[:4] in (b"MM\0*", b"MM\0+") else None


def read_first(data: bytes) -> Directory | None:
    """The first directory, as far as it can be read; none if there is none."""
    return next(read_all(data), None)


def read_all(data: bytes) -> Iterator[Directory]:
    """The directories of the pages, at most 1000."""
    order = byte_order(data)
    if order is None:
        return
    big = data[2:4] in (b"+\0", b"\0+")
    code, at, seen = order + ("Q" if big else "I"), 8 if big else 4, set[int]()
    view = memoryview(data)
    try:
        (place,) = struct.unpack_from(code, data, at)
        while place and place not in seen and len(seen) < _MAX_PAGES:
            seen.add(place)
            directory = _read(view, place, order, big, depth=0)
            yield directory
            place = directory.next
    except (struct.error, IndexError):
        return


def _read(data: memoryview, at: int, order: Order, big: bool, depth: int) -> Directory:
    (num,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    step, width, word = (20, 8, "Q") if big else (12, 4, "I")
    start = at + (8 if big else 2)
    tags: dict[int, Tag] = {}
    children: dict[int, Directory] = {}
    for entry in range(start, min(start + num * step, len(data) - step + 1), step):
        number, kind, count = struct.unpack_from(f"{order}HH{word}", data, entry)
        size = count * (_SIZES.get(kind) or _BIG_SIZES.get(kind, 0))
        place = entry + step - width
        if size > width:
            (place,) = struct.unpack_from(order + word, data, place)
        if size == 0 or place + size > len(data):
            continue
        tag = Tag(number, kind, count, data[place : place + size], place)
        tags.setdefault(number, tag)
        child = tag.integer(order) if number in POINTERS and depth < 2 else None
        if child:
            try:
                children[number] = _read(data, child, order, big, depth + 1)
            except struct.error:
                continue
    tail = start + num * step
    following = struct.unpack_from(order + word, data, tail)[0] if tail + width <= len(data) else 0
    return Directory(tags, order, children, following, at)


def orientation(block: bytes | None) -> int:
    """EXIF orientation, 1 to 8; 1 if there is none."""
    directory = read_first(block) if block else None
    value = directory.integer(ORIENTATION) if directory else None
    return value if value is not None and 1 <= value <= 8 else 1


def set_upright(block: bytes, *, height: int, width: int, turned: bool) -> bytes:
    """The EXIF block with orientation 1 and these sizes, otherwise unchanged.

    Args:
        turned: the image was rotated by 90 degrees; swap horizontal and vertical resolution.
    """
    directory = read_first(block)
    if directory is None:
        return block
    patched = bytearray(block)
    _set(patched, directory, {ORIENTATION: 1, _WIDTH: width, _HEIGHT: height})
    if exif := directory.children.get(EXIF):
        _set(patched, exif, {_EXIF_WIDTH: width, _EXIF_HEIGHT: height})
    across, down = directory.tags.get(X_RESOLUTION), directory.tags.get(Y_RESOLUTION)
    if turned and across and down and len(across.value) == len(down.value):
        patched[across.place : across.place + len(down.value)] = down.value
        patched[down.place : down.place + len(across.value)] = across.value
    return bytes(patched)


def _set(block: bytearray, directory: Directory, values: dict[int, int]) -> None:
    for number, value in values.items():
        tag = directory.tags.get(number)
        code = _INTEGERS.get(tag.kind) if tag else None
        if tag is not None and code and value < 256 ** struct.calcsize(code):
            struct.pack_into(directory.order + code, block, tag.place, value)


def begin_with(data: bytes, directory: Directory) -> bytes:
    """The file with this directory as the first one, and orientation 1."""
    patched = bytearray(data)
    _set(patched, directory, {ORIENTATION: 1})
    big = data[2:4] in (b"+\0", b"\0+")
    code = directory.order + ("Q" if big else "I")
    struct.pack_into(code, patched, 8 if big else 4, directory.place)
    return bytes(patched)


def integer_tag(number: int, value: int, order: Order) -> Tag:
    """A LONG."""
    return Tag(number, 4, 1, struct.pack(order + "I", value), 0)


def short_tag(number: int, value: int, order: Order) -> Tag:
    """A SHORT."""
    return Tag(number, 3, 1, struct.pack(order + "H", value), 0)


def bytes_tag(number: int, kind: int, value: bytes) -> Tag:
    """BYTE (1) or UNDEFINED (7)."""
    return Tag(number, kind, len(value), value, 0)


def rational_tag(number: int, value: float, order: Order) -> Tag:
    """A RATIONAL, as close as two 32-bit numbers allow."""
    value = min(max(value, 0.0), float(_LARGEST))
    exact = Fraction(value).limit_denominator(max(1, min(1_000_000, int(_LARGEST / (value + 1)))))
    return Tag(number, 5, 1, struct.pack(order + "II", exact.numerator, exact.denominator), 0)


def write(directory: Directory, at: int) -> bytes:
    """The bytes of a directory at offset ``at``, followed by its values and children."""
    order = directory.order
    tags = [tag for tag in directory.tags.values() if tag.number not in POINTERS]
    tags += [integer_tag(number, 0, order) for number in directory.children]
    tags.sort(key=lambda tag: tag.number)
    entries, values = bytearray(struct.pack(order + "H", len(tags))), bytearray()
    base = at + 2 + 12 * len(tags) + 4
    for tag in tags:
        value = tag.value
        if tag.number in directory.children:
            where = base + len(values)
            values += write(directory.children[tag.number], where)
            value = struct.pack(order + "I", where)
        entries += struct.pack(order + "HHI", tag.number, tag.kind, tag.count)
        if len(value) <= 4:
            entries += bytes(value).ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", base + len(values))
            values += value
        values += b"\0" * (len(values) % 2)
    entries += struct.pack(order + "I", 0)
    return bytes(entries + values)


def write_block(directory: Directory) -> bytes:
    """A TIFF structure with this directory: an EXIF block."""
    mark = b"II*\0" if directory.order == "<" else b"MM\0*"
    return mark + struct.pack(directory.order + "I", 8) + write(directory, 8)
