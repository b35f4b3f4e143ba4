"""Samples mean what the format says: depth, planes, keys, orientation of the scale."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from mirnet.errors import ImageError
from mirnet.images import decode, encode, read_size
from mirnet.images.image import Image
from tests.images.image_files import chunk, exif, png

RNG = np.random.default_rng(0)


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_samples_of_9_to_15_bits_are_scaled_to_full_range(bits: int, photometric: str) -> None:
    channels, largest = 3 if photometric == "rgb" else 1, (1 << bits) - 1
    samples = RNG.integers(0, largest + 1, (11, 13, channels)).astype(np.uint16)
    samples[0, 0], samples[0, 1] = 0, largest
    stored = np.unpackbits(samples[..., None].astype(">u2").view(np.uint8), axis=-1)
    rows = np.packbits(stored[..., 16 - bits :].reshape(11, -1), axis=1)
    data = tiff(rows, photometric="minisblack", rowsperstrip=11)
    data = retagged(data, width=13, bits=bits, channels=channels, photometric=photometric)
    values = samples if photometric != "miniswhite" else largest - samples
    wanted = np.floor(values.astype(int) * 65535 / largest + 0.5)
    image = decode(data, name="a")
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, np.broadcast_to(wanted, (11, 13, 3)))
    assert image.grey == (photometric != "rgb")


def retagged(data: bytes, *, width: int, bits: int, channels: int, photometric: str) -> bytes:
    """An 8-bit grey TIFF of packed rows, as the one whose rows they are."""
    from mirnet.images import tags

    directory, order = tags.read_first(data), tags.byte_order(data)
    assert directory is not None and order is not None
    number = {"miniswhite": 0, "minisblack": 1, "rgb": 2}[photometric]
    changed = {256: width, 262: number, 277: channels}
    new = dict(directory.tags) | {n: tags.short_tag(n, v, order) for n, v in changed.items()}
    depth = np.full(channels, bits, "<u2").tobytes()
    new[258] = tags.Tag(258, 3, channels, depth, 0)
    at = len(data) + len(data) % 2
    return (
        data[:4]
        + at.to_bytes(4, "little")
        + data[8:].ljust(at - 8, b"\0")
        + tags.write(tags.Directory(new, order), at)
    )


LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "rgb": (3, {"photometric": "rgb"}),
    "rgb and alpha": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "rgb and something": (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "grey and alpha": (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
}


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"tile": (16, 32)},
        {"rowsperstrip": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_in_strips_tiles_and_planes(
    dtype: type, stored: dict[str, Any], layout: str, planar: bool
) -> None:
    channels, options = LAYOUTS[layout]
    samples = RNG.integers(0, np.iinfo(dtype).max + 1, (21, 37, channels)).astype(dtype)
    written = np.ascontiguousarray(samples.transpose(2, 0, 1)) if planar else samples
    kind = "separate" if planar else "contig"
    data = tiff(written, planarconfig=kind, **options, **stored)
    image = decode(data, name="a")
    colour = samples[..., :3] if channels > 2 else np.repeat(samples[..., :1], 3, axis=2)
    assert np.array_equal(image.pixels, colour)
    assert image.pixels.dtype == dtype
    if "alpha" in layout:
        assert image.alpha is not None and np.array_equal(image.alpha, samples[..., -1])
    elif "something" not in layout or planar or dtype == np.uint16:
        assert image.alpha is None


def test_premultiplied_colours_are_divided() -> None:
    colour = RNG.integers(0, 65536, (7, 5, 3)).astype(np.uint16)
    alpha = RNG.integers(30_000, 65536, (7, 5, 1)).astype(np.uint16)
    alpha[0, 0] = 0
    stored = (colour.astype(np.uint64) * alpha // 65535).astype(np.uint16)
    both = np.concatenate((stored, alpha), axis=2)
    image = decode(tiff(both, photometric="rgb", extrasamples=["assocalpha"]), name="a")
    assert image.alpha is not None and np.array_equal(image.alpha, alpha[..., 0])
    off = np.abs(image.pixels.astype(int) - colour)
    assert off[alpha[..., 0] > 0].max() <= 3
    assert image.pixels[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", [1, 4])
def test_copies_and_masks_beside_the_picture_are_no_pages(kind: int) -> None:
    picture = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    beside = picture[..., 0] > 99 if kind == 4 else picture[::4, ::4, 0].copy()
    for first in (False, True):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            pages = [(picture, 0), (beside, kind)]
            for page, subfile in reversed(pages) if first else pages:
                photometric = "rgb" if page is picture else "minisblack"
                writer.write(page, photometric=photometric, subfiletype=subfile, metadata=None)
        image = decode(buffer.getvalue(), name="a")
        assert np.array_equal(image.pixels, picture)
        assert read_size(buffer.getvalue(), name="a") == (20, 30)
        assert image.metadata.dropped == ("1 further pages (reduced copies or masks)",)


def test_two_pictures_are_two_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(2):
            writer.write(np.zeros((9, 9), np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(ImageError, match="has 2 pages") as caught:
        decode(buffer.getvalue(), name="a")
    assert caught.value.reason == "animated"


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_key_is_compared_in_the_stored_depth(depth: int) -> None:
    largest = (1 << depth) - 1
    samples = RNG.integers(0, largest + 1, (9, 11, 1))
    key = int(samples[4, 4, 0])
    spelled = chunk(b"tRNS", key.to_bytes(2, "big"))
    image = decode(png(samples, depth=depth, colour=0, chunks=spelled), name="a")
    peak = 65535 if depth == 16 else 255
    assert np.array_equal(image.pixels[..., 0], samples[..., 0] * (peak // largest))
    assert image.alpha is not None
    assert np.array_equal(image.alpha, np.where(samples[..., 0] == key, 0, peak))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour(depth: int) -> None:
    samples = RNG.integers(0, 2, (9, 11, 3)) * ((1 << depth) - 1)
    key = chunk(b"tRNS", b"".join(int(v).to_bytes(2, "big") for v in samples[3, 3]))
    image = decode(png(samples, depth=depth, colour=2, chunks=key), name="a")
    assert np.array_equal(image.pixels, samples)
    assert image.alpha is not None
    assert np.array_equal(image.alpha == 0, (samples == samples[3, 3]).all(axis=2))


@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_may_be_any_unsigned_integer(kind: int, order: str) -> None:
    size = {1: 1, 3: 2, 4: 4}[kind]
    value = (6).to_bytes(size, "little" if order == "<" else "big")
    block = exif([(0x0112, kind, 1, value)], order)
    data = encode(Image(np.zeros((4, 9, 3), np.uint8), exif=block))
    image = decode(data, name="a")
    assert image.pixels.shape == (9, 4, 3)
    assert read_size(data, name="a") == (9, 4)
    assert decode(encode(image), name="a").pixels.shape == (9, 4, 3)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_is_found_behind_other_channels(dtype: type, planar: bool) -> None:
    samples = RNG.integers(0, 256, (11, 13, 5)).astype(dtype)
    stored = samples.transpose(2, 0, 1) if planar else samples
    layout = "separate" if planar else "contig"
    data = tiff(stored, photometric="rgb", extrasamples=[0, 2], planarconfig=layout)
    image = decode(data, name="a")
    assert np.array_equal(image.pixels, samples[..., :3])
    assert image.alpha is not None
    assert np.array_equal(image.alpha, samples[..., 4])
