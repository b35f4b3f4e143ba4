"""JPEG: kind of coding, completeness and segments.

ITU-T T.81, annex B (markers) and G (progression). libjpeg only warns of missing data and fills
it with grey; simplejpeg is configured to treat warnings as errors.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mirnet.images.image import Unreadable

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _DHP, _EOI, _COM = 0xDA, 0xDE, 0xD9, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2}
# no decoder can tell whether arithmetic coding is complete
_DECODABLE = {0xC0, 0xC1, 0xC2}
# in coded data FF is followed by 00; restart markers are part of it
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ANY_MARKER = re.compile(rb"\xff[^\x00\xff]")
# a decoder reads up to 8 bytes ahead of the last code
_READ_AHEAD = 8
# ten are usual; each costs a decoder one pass over the whole image
_MAX_SCANS = 200
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_MAX_BODY = 65_533
# Adobe's segment: 12 bytes, the last one names the transform
_ADOBE = 12
_ADOBE_HEAD = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


@dataclass(frozen=True)
class Scan:
    """One pass over some components: coefficients ``first`` to ``last``, down to bit ``low``."""

    components: tuple[int, ...]
    first: int
    last: int
    low: int


@dataclass(frozen=True)
class Stream:
    """The markers of one JPEG image.

    Attributes:
        process: number of the frame marker (SOF), which names the kind of coding.
        segments: marker and body of APPn and COM, in their order.
        lean: the stream without them (except JFIF's and Adobe's), closed by an EOI; with
            corrected scan parameters if the coding is sequential.
        end: offset after the EOI; none where there is no EOI.
    """

    process: int
    precision: int
    height: int
    width: int
    components: tuple[int, ...]
    scans: tuple[Scan, ...]
    segments: tuple[tuple[int, bytes], ...]
    lean: bytes
    end: int | None

    @property
    def adobe(self) -> bool:
        """Whether CMYK is stored inverted, by Adobe's segment."""
        return any(m == 0xEE and body.startswith(b"Adobe") for m, body in self.segments)


def parse(data: bytes, *, header_only: bool = False, transform: int | None = None) -> Stream:
    """Parse the markers.

    Args:
        transform: Adobe's number of the colour transform, if the stream does not have it:
            0 for none, 1 for YCbCr.

    Raises:
        Unreadable: kinds of coding that are not decoded (lossless, hierarchical, arithmetic, 12
            bits, no height in the header).
        IndexError, struct.error, ValueError: they end early.
    """
    stream = Stream(0, 0, 0, 0, (), (), (), b"", None)
    segments: list[tuple[int, bytes]] = []
    scans: list[Scan] = []
    lean = [SOI]
    if transform is not None:
        lean.append(_ADOBE_HEAD + bytes([transform]))
    at = 2
    while found := _ANY_MARKER.search(data, at):
        at = found.start()
        marker = data[at + 1]
        if marker == _EOI:
            stream = replace(stream, end=at + 2)
            break
        if marker == 0xD8 or marker == 1 or 0xD0 <= marker <= 0xD7:
            if marker == 0xD8:
                raise ValueError("another image begins inside of it")
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) < length - 2:
            raise ValueError(f"segment {marker:#x} is cut short")
        after = at + 2 + length
        if marker in _FRAMES or marker == _DHP:
            if stream.process:
                raise ValueError("a second frame")
            stream = _frame(stream, marker, body)
            if header_only:
                return replace(stream, segments=tuple(segments))
        if marker == _SOS:
            scans.append(_scan(body))
            if len(scans) > _MAX_SCANS:
                raise Unreadable(f"more than {_MAX_SCANS} scans")
            end = _MARKER.search(data, after)
            after = end.start() if end else len(data)
            lean.append(_scan_bytes(stream, data[at:after]))
        elif marker == _COM or 0xE0 <= marker <= 0xEF:
            segments.append((marker, body))
            if transform is None and _says_colour(marker, body):
                lean.append(data[at:after])
        else:
            lean.append(data[at:after])
        at = after
    if not stream.process or not scans:
        raise ValueError("no image data")
    lean.append(EOI)
    if transform is None:
        lean = [_known_transform(part, len(stream.components)) for part in lean]
    return replace(stream, scans=tuple(scans), segments=tuple(segments), lean=b"".join(lean))


def _says_colour(marker: int, body: bytes) -> bool:
    """JFIF's and Adobe's segments."""
    if marker == 0xE0:
        return body.startswith(b"JFIF\0\x01")
    return marker == 0xEE and body.startswith(b"Adobe") and len(body) >= _ADOBE


def _known_transform(part: bytes, num_components: int) -> bytes:
    """Adobe's segment with a valid transform; libjpeg takes others for one of these, and warns."""
    if part[:2] != b"\xff\xee":
        return part
    most = 2 if num_components == 4 else 1
    transform = part[4 + _ADOBE - 1]
    valid = transform if transform in (0, most) else most
    return part[: 4 + _ADOBE - 1] + bytes([valid]) + part[4 + _ADOBE :]


def _frame(stream: Stream, marker: int, body: bytes) -> Stream:
    precision, height, width, num_components = struct.unpack_from(">BHHB", body)
    what = None
    if marker not in _DECODABLE:
        what = "lossless, hierarchical or arithmetic coding"
    elif precision != 8:
        what = f"{precision} bits per sample"
    elif height == 0:
        what = "no height in its header (DNL)"
    elif num_components not in (1, 3, 4):
        what = f"{num_components} components"
    if what:
        raise Unreadable(f"JPEG with {what} is not supported")
    components = tuple(body[6 + 3 * n] for n in range(num_components))
    return replace(
        stream,
        process=marker,
        precision=precision,
        height=height,
        width=width,
        components=components,
    )


def _scan(body: bytes) -> Scan:
    num = body[0]
    first, last, bits = body[1 + 2 * num : 4 + 2 * num]
    return Scan(tuple(body[1 + 2 * n] for n in range(num)), first, last, bits & 15)


def _scan_bytes(stream: Stream, scan: bytes) -> bytes:
    """A sequential scan has all coefficients, whatever some encoders write into its header."""
    if stream.process in _PROGRESSIVE:
        return scan
    (length,) = struct.unpack_from(">H", scan, 2)
    return scan[: length - 1] + b"\0\x3f\0" + scan[2 + length :]


def check_scans(stream: Stream) -> None:
    """Check that scans for all coefficients of all components exist, down to the last bit.

    Raises:
        ValueError: some are missing.
    """
    left = {(c, k) for c in stream.components for k in range(64)}
    for scan in stream.scans:
        if stream.process not in _PROGRESSIVE:
            left -= {(c, k) for c in scan.components for k in range(64)}
        elif scan.low == 0:
            left -= {(c, k) for c in scan.components for k in range(scan.first, scan.last + 1)}
    if left:
        raise ValueError("scans are missing")


def decode(stream: Stream, mode: str) -> npt.NDArray[np.uint8]:
    """The whole image as (H, W, channels).

    Args:
        mode: ``RGB``, ``GRAY`` or ``CMYK`` (as stored).

    Raises:
        Unreadable: sampling factors that the strict decoder does not support.
        ValueError: something of it is missing or damaged.
    """
    import simplejpeg

    check_scans(stream)
    data = stream.lean
    while True:
        try:
            return simplejpeg.decode_jpeg(data, mode, strict=True)  # type: ignore[no-any-return]
        except ValueError as error:
            message = str(error)
        if "subsampling" in message:  # other decoders do not report missing data
            raise Unreadable("JPEG with these sampling factors is not supported")
        padding = _padding(data, message)
        if not padding:
            raise ValueError(message)
        # the bytes that were read ahead are reported the next time
        data = data[: -len(EOI) - padding] + EOI


def _padding(data: bytes, message: str) -> int:
    """Number of padding bytes between the last code and the EOI; 0 if they are not padding.

    Equal bytes in place of coded data are damage: the decoder consumed some of them, so there are
    more than it reported as extraneous.
    """
    found = _EXTRANEOUS.search(message)
    if found is None:
        return 0
    num_left = int(found[1])
    coded = data[: -len(EOI)]
    run = len(coded) - len(coded.rstrip(coded[-1:]))
    return num_left if num_left <= run <= num_left + _READ_AHEAD else 0


def with_segments(data: bytes, segments: Iterable[tuple[int, bytes]]) -> bytes:
    """The file with these segments after its SOI and JFIF header.

    Raises:
        ValueError: one is longer than a segment can be.
    """
    parts = []
    for marker, body in segments:
        if len(body) > _MAX_BODY:
            raise ValueError(f"{len(body)} bytes do not fit into a segment")
        parts.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
    at = 2
    if data[2:4] == b"\xff\xe0":
        at += 2 + struct.unpack_from(">H", data, 4)[0]
    return b"".join((data[:at], *parts, data[at:]))
