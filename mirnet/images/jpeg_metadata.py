"""Metadata from the segments of a JPEG, and segments from metadata.

JFIF 1.02; EXIF 2.32, section 4.7; XMP part 3, section 1.1.3; ICC.1, annex B.4; Photoshop image
resources.
"""

from __future__ import annotations

import struct

from mirnet.images import photoshop
from mirnet.images.image import Image, Metadata, Resolution, after
from mirnet.images.jpeg import Stream

_JFIF, _EXIF, _PHOTOSHOP = b"JFIF\0", b"Exif\0\0", b"Photoshop 3.0\0"
_XMP, _XMP_EXTENSION = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_MAX_BODY = 65_533
# contents of other known segments
_HELD = {
    (0xE0, b"JFXX"): "JFIF thumbnail",
    (0xE2, b"MPF\0"): "further pictures (MPF)",
    (0xE2, b"urn:"): "gain map",
    (0xEB, b"JP"): "content credentials (JUMBF)",
}
_STRUCTURAL = {(0xEE, b"Adobe"), (0xE0, b"AVI1")}


def read(stream: Stream, data: bytes) -> tuple[bytes | None, bytes | None, Metadata]:
    """Profile, EXIF block, and the rest."""
    exif = xmp = resolution = None
    comments, extensions, resources, profile, dropped = [], [], [], {}, []
    for marker, body in stream.segments:
        if marker == 0xFE:
            comments.append(body)
        elif marker == 0xE0 and body.startswith(_JFIF) and len(body) >= 12:
            resolution = resolution or _density(body)
        elif marker == 0xE1 and body.startswith(_EXIF) and exif is None:
            exif = body[len(_EXIF) :]
        elif marker == 0xE1 and body.startswith(_XMP) and xmp is None:
            xmp = body[len(_XMP) :]
        elif marker == 0xE1 and body.startswith(_XMP_EXTENSION):
            extensions.append(body)
        elif marker == 0xE2 and body.startswith(_ICC) and len(body) > 14:
            profile[body[12]] = body
        elif marker == 0xED and body.startswith(_PHOTOSHOP):
            resources.append(body[len(_PHOTOSHOP) :])
        elif (marker, body[:5]) not in _STRUCTURAL and (marker, body[:4]) not in _STRUCTURAL:
            dropped.append(_what(marker, body))
    icc = _joined(profile)
    if profile and icc is None:
        dropped.append("colour profile of which parts are missing")
    dropped += after(data, stream.end) if stream.end else ()
    blocks, thumbnails = photoshop.without_thumbnails(b"".join(resources))
    dropped += ["Photoshop thumbnail"] if thumbnails else []
    metadata = Metadata(
        xmp=xmp,
        xmp_extensions=tuple(extensions),
        photoshop=blocks or None,
        resolution=resolution,
        comments=tuple(comments),
        dropped=tuple(dict.fromkeys(dropped)),
    )
    return icc, exif, metadata


def exif_of(stream: Stream) -> bytes | None:
    bodies = (body for marker, body in stream.segments if marker == 0xE1)
    return next((body[len(_EXIF) :] for body in bodies if body.startswith(_EXIF)), None)


def _density(body: bytes) -> Resolution | None:
    unit, across, down = struct.unpack_from(">BHH", body, 7)
    if not across or not down or unit > 2 or (unit == 0 and across == down):
        return None
    return Resolution(across, down, ("none", "inch", "cm")[unit])


def _joined(parts: dict[int, bytes]) -> bytes | None:
    if not parts:
        return None
    num = next(iter(parts.values()))[13]
    if set(parts) != set(range(1, num + 1)):
        return None
    return b"".join(parts[n][14:] for n in range(1, num + 1))


def _what(marker: int, body: bytes) -> str:
    for (number, start), what in _HELD.items():
        if marker == number and body.startswith(start):
            return what
    label = body.split(b"\0", 1)[0][:24].decode("ascii", "replace").strip()
    return f"APP{marker - 0xE0} {label}".strip() if label.isprintable() else f"APP{marker - 0xE0}"


def segments(image: Image) -> tuple[list[tuple[int, bytes]], list[str]]:
    """Marker and body of the segments to be written, and names of metadata that do not fit."""
    metadata = image.metadata
    found: list[tuple[int, bytes, str]] = []
    if image.exif:
        found.append((0xE1, _EXIF + image.exif.removeprefix(_EXIF), "EXIF"))
    if metadata.xmp:
        found.append((0xE1, _XMP + metadata.xmp, "XMP"))
    found += [(0xE1, body, "XMP") for body in metadata.xmp_extensions]
    resources = photoshop.with_iptc(metadata.photoshop, metadata.iptc)
    for part in _pieces(resources or b"", _MAX_BODY - len(_PHOTOSHOP)):
        found.append((0xED, _PHOTOSHOP + part, "IPTC"))
    parts = _pieces(image.icc or b"", _MAX_BODY - 14)
    if len(parts) <= 255:
        for number, part in enumerate(parts, 1):
            found.append((0xE2, _ICC + bytes([number, len(parts)]) + part, "colour profile"))
    found += [(0xFE, comment, "comment") for comment in metadata.comments]
    fitting = [(marker, body) for marker, body, _ in found if len(body) <= _MAX_BODY]
    large = [
        f"{what} of {len(body)} bytes, which does not fit into a JPEG"
        for _, body, what in found
        if len(body) > _MAX_BODY
    ]
    return fitting, large


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def with_density(data: bytes, resolution: Resolution | None) -> bytes:
    """The file with this density in its JFIF header, where Pillow writes it."""
    if resolution is None or data[6:11] != _JFIF:
        return data
    if resolution.unit == "metre":
        resolution = resolution.per("inch")
    unit = ("none", "inch", "cm").index(resolution.unit)
    across, down = (min(65535, max(1, round(v))) for v in (resolution.across, resolution.down))
    return data[:13] + struct.pack(">BHH", unit, across, down) + data[18:]
