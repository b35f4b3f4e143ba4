"""TIFF -> array. Tags: TIFF revision 6.0, sections 4 to 8, 14 and 18.

Pillow reads up to 8 bits per sample in one plane. Wider samples, and those in planes, are
unpacked here; Pillow only decompresses their bytes.
"""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.TiffImagePlugin import TiffImageFile

from mirnet.images import strips, tags, tiff_strips
from mirnet.images.image import Image, Unreadable
from mirnet.images.tags import Directory

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _FILL_ORDER, _OFFSETS, _CHANNELS, _ROWS, _COUNTS = 262, 266, 273, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT = 284, 317, 322, 323
_TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _SAMPLE_FORMAT, _DNG = 324, 325, 338, 339, 50706
_JPEG_TABLES, _ICC = 347, 34675
_REDUCED, _MASK = 1, 4
_WHITE_IS_ZERO, _RGB, _SEPARATED, _YCBCR = 0, 2, 5, 6
_PLAIN, _JPEG, _DEFLATE = 1, 7, (8, 32946)
# LZW, PackBits, LZMA, Zstandard
_UNPACKED_BY_PILLOW = (5, 32773, 34925, 50000)
# not 6, the JPEG of TIFF 6.0: its damage cannot be detected
_KNOWN = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000, 50001}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_UNSIGNED, _UNDEFINED = 1, 4
_MAX_CHANNELS = 5
_SMALL_TILE = 1 << 22
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK")


@dataclass(frozen=True)
class Page:
    """The directory of the image among those of a file."""

    directory: Directory
    index: int
    num_others: int

    def integer(self, number: int, default: int) -> int:
        """The value of a tag, or TIFF's default."""
        value = self.directory.integer(number)
        return default if value is None else value

    @property
    def width(self) -> int:
        return self.integer(_WIDTH, 0)

    @property
    def height(self) -> int:
        return self.integer(_HEIGHT, 0)

    @property
    def bits(self) -> tuple[int, ...]:
        values = self.directory.integers(_BITS)
        return tuple(int(value) for value in values[: _MAX_CHANNELS + 1]) or (1,)

    @property
    def is_cmyk(self) -> bool:
        """Whether it has to be converted to RGB."""
        return self.integer(_PHOTOMETRIC, 1) == _SEPARATED

    @property
    def orientation(self) -> int:
        """1 to 8."""
        value = self.integer(tags.ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1


def find_page(data: bytes) -> Page:
    """The single image; reduced-resolution copies and masks do not count.

    Raises:
        Unreadable: ``animated`` if there are several, ``truncated`` if there is none.
    """
    pages = list(enumerate(tags.read_all(data)))
    if not pages or not pages[0][1].tags:
        raise Unreadable("damaged: no directory can be read", "truncated")
    full = [(n, page) for n, page in pages if not _is_beside(page)] or pages[:1]
    if len(full) > 1:
        raise Unreadable(f"has {len(full)} pages; one is supported", "animated")
    index, directory = full[0]
    return Page(directory, index, len(pages) - 1)


def _is_beside(page: Directory) -> bool:
    kind = page.integer(_SUBFILE) or 0
    return bool(kind & (_REDUCED | _MASK)) or page.integer(_OLD_SUBFILE) == 2


def read(data: bytes, page: Page) -> Image:
    """The image as stored, without metadata.

    Raises:
        Unreadable: ``unsupported``.
        ValueError, OSError: something is damaged or missing.
    """
    compression = page.integer(_COMPRESSION, _PLAIN)
    if _DNG in page.directory.tags or compression not in _KNOWN:
        what = "raw data (DNG)" if _DNG in page.directory.tags else f"compression {compression}"
        raise _unsupported(what)
    segments = _segments(data, page)
    first = next(segments)  # checks that all of them are within the file
    segments = itertools.chain([first], segments)
    formats = page.directory.integers(_SAMPLE_FORMAT)
    if not set(formats.tolist()) <= {_UNSIGNED, _UNDEFINED}:
        raise _unsupported("samples that are no unsigned integers")
    if max(page.bits) > 8 or compression == _JPEG or _is_unpacked_here(page):
        return _by_samples(data, page, segments)
    if compression in _DEFLATE:
        for segment in segments:
            _check_deflate(data, page, segment)
    return _by_pillow(data, page)


def _check_deflate(data: bytes, page: Page, segment: _Segment) -> None:
    most = 2 * segment.rows * segment.columns * max(1, page.integer(_CHANNELS, 1)) + _SMALL_TILE
    place = slice(segment.offset, segment.offset + segment.count)
    tiff_strips.check_deflate(memoryview(data)[place], most)


def _by_pillow(data: bytes, page: Page) -> Image:
    if page.orientation != 1 or page.index:  # Pillow would rotate it, or read another page
        data = tags.begin_with(data, page.directory)
    try:
        pillow = TiffImageFile(io.BytesIO(data))
    except (SyntaxError, KeyError, EOFError) as error:
        raise Unreadable(f"TIFF of a kind that is not supported: {error}") from error
    if pillow.mode not in _MODES:
        raise _unsupported(f"pixels of type {pillow.mode}")
    pillow.info.pop("xmp", None)  # Pillow would rotate by it
    if pillow.mode == "CMYK":
        return Image(strips.cmyk_to_srgb(pillow, pillow.info.get("icc_profile")), "TIFF")
    return strips.to_image(pillow, "TIFF")


@dataclass(frozen=True)
class _Segment:
    """A strip or tile: the range of its bytes and of its samples."""

    offset: int
    count: int
    plane: int
    top: int
    left: int
    rows: int
    columns: int


def _segments(data: bytes, page: Page) -> Iterator[_Segment]:
    """Strips or tiles, plane by plane.

    Raises:
        ValueError: some are outside of the file.
    """
    tiled = _TILE_OFFSETS in page.directory.tags
    columns = page.integer(_TILE_WIDTH, 0) if tiled else page.width
    rows = page.integer(_TILE_HEIGHT, 0) if tiled else page.integer(_ROWS, page.height)
    rows = rows if tiled else min(rows, page.height)
    if columns <= 0 or rows <= 0:
        raise ValueError("its size is missing")
    offsets = page.directory.integers(_TILE_OFFSETS if tiled else _OFFSETS)
    counts = page.directory.integers(_TILE_COUNTS if tiled else _COUNTS)
    if not tiled and counts.size == 0 and offsets.size == 1:
        counts = np.array([len(data) - int(offsets[0])])  # old writers omit it
    planes = page.integer(_CHANNELS, 1) if page.integer(_PLANAR, 1) == 2 else 1
    num = planes * -(-page.height // rows) * -(-page.width // columns)
    offsets, counts = offsets[:num], counts[:num]
    if num > min(len(offsets), len(counts)) or (offsets < 0).any() or (counts < 0).any():
        raise ValueError("strips are missing")
    if (offsets + counts).max() > len(data):
        raise ValueError("its end is missing")
    if rows * columns > max(page.height * page.width, _SMALL_TILE):
        raise Unreadable("its tiles are larger than the image", "too-large")
    places = itertools.product(
        range(planes), range(0, page.height, rows), range(0, page.width, columns)
    )
    for (plane, top, left), offset, count in zip(places, offsets, counts, strict=True):
        high = rows if tiled else min(rows, page.height - top)
        yield _Segment(int(offset), int(count), plane, top, left, high, columns)


def _is_unpacked_here(page: Page) -> bool:
    """8-bit samples in planes, or with more than one extra sample, which are unpacked here."""
    channels, photometric = page.integer(_CHANNELS, 1), page.integer(_PHOTOMETRIC, 1)
    several = channels > 1 and page.integer(_PLANAR, 1) == 2
    several |= channels > (3 if photometric == _RGB else 1) + 1
    unpacked = page.integer(_COMPRESSION, _PLAIN) in (_PLAIN, *_DEFLATE, *_UNPACKED_BY_PILLOW)
    return several and unpacked and set(page.bits) == {8} and photometric <= 2


def _by_samples(data: bytes, page: Page, segments: Iterable[_Segment]) -> Image:
    """8 bits per sample, or 9 to 16, scaled to the full range of 16."""
    num_colours = {_RGB: 3, _YCBCR: 3, _SEPARATED: 4}.get(page.integer(_PHOTOMETRIC, 1), 1)
    channels = page.integer(_CHANNELS, 1)
    _check(page, num_colours, channels)
    extra = page.directory.integers(_EXTRA).tolist()[: channels - num_colours]
    at = next((n for n, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
    stored = [*range(num_colours), *([] if at is None else [num_colours + at])]
    dtype = np.uint8 if max(page.bits) == 8 else np.uint16
    samples = np.empty((page.height, page.width, len(stored)), dtype)
    planar = page.integer(_PLANAR, 1) == 2
    for segment in segments:
        if planar and segment.plane not in stored:
            continue
        block = _samples(data, page, segment, 1 if planar else channels)
        bottom = min(segment.top + segment.rows, page.height)
        right = min(segment.left + segment.columns, page.width)
        place = samples[segment.top : bottom, segment.left : right]
        block = block[: bottom - segment.top, : right - segment.left]
        if planar:
            place[..., stored.index(segment.plane)] = block[..., 0]
        else:
            for n, channel in enumerate(stored):
                place[..., n] = block[..., channel]
    _scale(samples, page, num_colours)
    if at is not None and extra[at] == _ASSOCIATED:
        _divide(samples)
    pixels = samples[..., :num_colours]
    alpha = np.ascontiguousarray(samples[..., num_colours]) if at is not None else None
    if page.is_cmyk:
        profile = page.directory.tags.get(_ICC)
        ink = PIL.Image.fromarray(np.ascontiguousarray(pixels), "CMYK")
        return Image(strips.cmyk_to_srgb(ink, bytes(profile.value) if profile else None), "TIFF")
    if num_colours == 1:
        return Image(strips.three(pixels[..., 0]), "TIFF", alpha, grey=True)
    return Image(np.ascontiguousarray(pixels), "TIFF", alpha)


def _check(page: Page, num_colours: int, channels: int) -> None:
    bits, predictor = page.bits, page.integer(_PREDICTOR, 1)
    compression, photometric = page.integer(_COMPRESSION, 1), page.integer(_PHOTOMETRIC, 1)
    what = None
    in_jpeg = compression == _JPEG
    if photometric not in (0, 1, 2) and not (in_jpeg and photometric in (_SEPARATED, _YCBCR)):
        what = f"photometric interpretation {photometric} in {max(bits)} bits"
    elif len(set(bits)) > 1 or bits[0] > 16:
        what = f"{'/'.join(map(str, bits))} bits per sample"
    elif not num_colours <= channels <= _MAX_CHANNELS:
        what = f"{channels} samples per pixel"
    elif in_jpeg and (bits[0] != 8 or (photometric == _YCBCR and page.integer(_PLANAR, 1) == 2)):
        what = f"JPEG of {bits[0]} bits or in planes of YCbCr"
    elif not in_jpeg and compression not in (_PLAIN, *_DEFLATE, *_UNPACKED_BY_PILLOW):
        what = f"compression {compression} of {bits[0]} bits"
    elif predictor not in (1, 2) or (predictor == 2 and bits[0] not in (8, 16)):
        what = f"predictor {predictor} of {bits[0]} bits"
    elif page.integer(_FILL_ORDER, 1) != 1:
        what = "its bits in reverse"
    if what:
        raise _unsupported(what)


def _unsupported(what: str) -> Unreadable:
    return Unreadable(f"TIFF with {what} is not supported")


def _samples(data: bytes, page: Page, segment: _Segment, channels: int) -> npt.NDArray[Any]:
    """(rows, columns, channels) as stored."""
    if page.integer(_COMPRESSION, 1) == _JPEG:
        return _samples_of_jpeg(data, page, segment, channels)
    if page.integer(_COMPRESSION, 1) in _DEFLATE:
        _check_deflate(data, page, segment)
    bits, across = page.bits[0], segment.columns * channels
    row_bytes = -(-across * bits // 8)
    packed = data[segment.offset : segment.offset + segment.count]
    raw = _unpack(packed, page.integer(_COMPRESSION, 1), row_bytes, segment.rows)
    if len(raw) < row_bytes * segment.rows:
        raise ValueError("rows are missing")
    rows = np.frombuffer(raw, np.uint8, row_bytes * segment.rows).reshape(segment.rows, row_bytes)
    order = page.directory.order
    flat = rows.view(f"{order}u{bits // 8}") if bits % 8 == 0 else _from_bits(rows, bits)
    flat = flat[:, :across]
    values: npt.NDArray[Any] = flat.reshape(segment.rows, segment.columns, channels)
    if page.integer(_PREDICTOR, 1) == 2:
        return np.cumsum(values, axis=1, dtype=values.dtype.newbyteorder("="))
    return values


def _samples_of_jpeg(
    data: bytes, page: Page, segment: _Segment, channels: int
) -> npt.NDArray[np.uint8]:
    tables = page.directory.tags.get(_JPEG_TABLES)
    block = tiff_strips.read_jpeg(
        data[segment.offset : segment.offset + segment.count],
        bytes(tables.value) if tables else b"",
        photometric=page.integer(_PHOTOMETRIC, 1),
        most=max(page.height * page.width, _SMALL_TILE),
    )
    if block.shape[0] < segment.rows or block.shape[1:] != (segment.columns, channels):
        raise ValueError("a strip is not of its size")
    return block


def _unpack(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    if compression == _PLAIN:
        return packed
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(packed, row_bytes * rows)
    # read as an 8-bit grey image, Pillow returns these bytes unchanged
    entries = {
        _WIDTH: row_bytes,
        _HEIGHT: rows,
        _BITS: 8,
        _COMPRESSION: compression,
        _PHOTOMETRIC: 1,
        _OFFSETS: 8,
        _CHANNELS: 1,
        _ROWS: rows,
        _COUNTS: len(packed),
    }
    directory = Directory({n: tags.integer_tag(n, v, "<") for n, v in entries.items()}, "<")
    body = packed + b"\0" * (len(packed) % 2)
    at = 8 + len(body)
    file = b"II*\0" + at.to_bytes(4, "little") + body + tags.write(directory, at)
    return TiffImageFile(io.BytesIO(file)).tobytes()


def _from_bits(rows: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint16]:
    """Samples packed without gaps, most significant bit first; rows begin at a byte."""
    per_row = rows.shape[1] * 8 // bits
    values = np.empty((len(rows), per_row), np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    step = max(1, (1 << 20) // max(1, per_row))
    for top in range(0, len(rows), step):
        unpacked = np.unpackbits(rows[top : top + step], axis=1)[:, : per_row * bits]
        values[top : top + step] = unpacked.reshape(-1, per_row, bits) @ weights
    return values


def _scale(samples: npt.NDArray[Any], page: Page, num_colours: int) -> None:
    """Scale in place to the full range of the type with black at 0."""
    largest = (1 << page.bits[0]) - 1
    step = max(1, (1 << 20) // samples[0].size)
    for top in range(0, len(samples), step):
        strip = samples[top : top + step]
        if page.integer(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
            strip[..., :num_colours] = largest - strip[..., :num_colours]
        if samples.dtype == np.uint16 and largest != 65535:
            strip[:] = (strip.astype(np.uint32) * 65535 + largest // 2) // largest


def _divide(samples: npt.NDArray[Any]) -> None:
    """Undo premultiplied alpha in place."""
    full = np.uint32(np.iinfo(samples.dtype).max)
    step = max(1, (1 << 20) // samples[0].size)
    for top in range(0, len(samples), step):
        strip = samples[top : top + step]
        alpha = strip[..., -1:].astype(np.uint32)
        colour = (strip[..., :-1] * full + alpha // 2) // np.maximum(alpha, 1)
        strip[..., :-1] = np.where(alpha > 0, np.minimum(colour, full), 0)
