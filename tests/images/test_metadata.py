"""Nothing that carries meaning is lost without a word; docs/formats.md is the table of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

import numpy as np
import PIL.Image
import pytest
import tifffile
from PIL import ImageCms

from mirnet.images import FORMATS, Image, decode, encode, icc as profiles
from mirnet.images.formats import FIELDS, TABLE
from mirnet.images.image import Metadata, Resolution
from mirnet.images.metadata import left_behind
from tests.images.image_files import chunk, exif, jpeg, png, saved, segment, with_segments

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description xmp:Rating="4" '
    b'tiff:Orientation="6" tiff:ImageWidth="9"><exif:PixelYDimension>6</exif:PixelYDimension>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = bytes.fromhex("1c0219000568656c6c6f")  # keyword "hello"
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
P3 = (
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
)
DESCRIPTIVE = exif(
    [
        (0x010F, 2, 6, b"Canon\0"),
        (0x0132, 2, 20, b"2026:01:02 03:04:05\0"),
        (0x013B, 2, 10, "Jörg 夜".encode() + b"\0"),
        (0x9C9B, 1, 6, "夜の".encode("utf-16-le") + b"\0\0"),
    ]
)
FULL = Image(
    PIXELS,
    icc=SRGB,
    exif=DESCRIPTIVE,
    metadata=Metadata(
        xmp=XMP,
        photoshop=RESOURCES,
        resolution=Resolution(300, 300),
        comments=(b"a comment",),
        text=((b"tEXt", b"parameters\0a dark room"), (b"zTXt", b"a\0\0" + zlib.compress(b"b"))),
        others=((b"tIME", bytes(7)),),
    ),
)
VALUES = {
    "icc": lambda image: image.icc,
    "exif": lambda image: image.exif,
    "XMP": lambda image: image.metadata.xmp,
    "IPTC": lambda image: image.metadata.photoshop,
    "resolution": lambda image: (
        image.metadata.resolution and round(image.metadata.resolution.per("inch").across, 1)
    ),
    "colour": lambda image: [c for c in image.metadata.colour if c[0] != b"iCCP"],
    "text": lambda image: [t for t in image.metadata.text if not t[1].startswith(b"Raw profile")],
    "comments": lambda image: image.metadata.comments,
    "further chunks": lambda image: image.metadata.others,
}


def in_full(field: str) -> Image:
    """An image that carries this field only."""
    if field == "colour":
        return Image(PIXELS, metadata=Metadata(colour=P3))
    if field in ("icc", "exif"):
        return Image(PIXELS, **{field: getattr(FULL, field)})
    names = {"XMP": "xmp", "IPTC": "photoshop", "further chunks": "others"}
    name = names.get(field, field)
    return Image(PIXELS, metadata=Metadata(**{name: getattr(FULL.metadata, name)}))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_the_table_says_what_becomes_of_each_field(entry: object, field: str) -> None:
    image = in_full(field)
    fate = entry.fate(field)  # type: ignore[attr-defined]
    name = entry.name  # type: ignore[attr-defined]
    again = decode(encode(image, format=name), name="a")
    lost = left_behind(image, name)
    if fate == "kept":
        assert VALUES[field](again) == VALUES[field](image)
        assert not lost
    elif fate == "converted":
        assert again.icc or again.metadata.text
        assert not lost
    else:
        assert not VALUES[field](again)
        assert len(lost) == 1


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_lost_at_a_second_turn(format: str) -> None:
    once = decode(encode(FULL, format=format), name="a")
    twice = decode(encode(once), name="b")
    for each in fields(once):
        if each.name != "pixels":
            assert getattr(twice, each.name) == getattr(once, each.name), each.name


def test_exif_is_kept_byte_for_byte_but_orientation_and_sizes() -> None:
    inner = exif([(0xA002, 4, 1, b"\x09\0\0\0"), (0xA003, 3, 1, b"\x06\0")])[8:]
    comment = b"UNICODE\0" + "grüße 夜".encode("utf-16-le")
    entries = [
        (0x0112, 3, 1, b"\x06\0"),
        (0x013B, 2, 10, "Jörg 夜".encode() + b"\0"),
        (0x9286, 7, len(comment), comment),
        (0x011A, 5, 1, struct.pack("<II", 300, 1)),
        (0x011B, 5, 1, struct.pack("<II", 150, 1)),
        (0x8769, 4, 1, bytes(4)),
    ]
    block = bytearray(exif(entries) + inner + b"maker note with offsets of its own")
    pointer = bytes(block).index(struct.pack("<HHI", 0x8769, 4, 1)) + 8
    struct.pack_into("<I", block, pointer, len(block) - len(inner) - 34)
    data = with_segments(jpeg(), segment(0xE1, b"Exif\0\0" + bytes(block)))
    image = decode(data, name="a")
    assert image.exif is not None and len(image.exif) == len(block)
    tags = PIL.Image.Exif()
    tags.load(image.exif)
    assert tags[0x0112] == 1
    assert (tags[0x011A], tags[0x011B]) == (150, 300)
    assert dict(tags.get_ifd(0x8769)) == {0xA002: 160, 0xA003: 200}
    changed = [n for n, (a, b) in enumerate(zip(block, image.exif, strict=True)) if a != b]
    assert len(changed) <= 2 + 2 * 2 + 2 * 2
    for format in ("JPEG", "PNG", "WEBP"):
        assert decode(encode(image, format=format), name="b").exif == image.exif


def test_exif_that_cannot_be_read_is_kept() -> None:
    for block in (b"garbage", b"II*\0\xff\xff\xff\xff", exif([(0x0112, 3, 1, b"\x09\0")])):
        data = with_segments(jpeg(), segment(0xE1, b"Exif\0\0" + block))
        image = decode(data, name="a")
        assert image.pixels.shape == (160, 200, 3)
        assert decode(encode(image), name="b").exif == image.exif


def test_orientation_in_xmp_alone_turns_nothing_and_stays() -> None:
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encode(Image(PIXELS, metadata=Metadata(xmp=XMP)), format=format)
        image = decode(data, name="a")
        assert image.pixels.shape == PIXELS.shape
        assert image.metadata.xmp == XMP


def test_xmp_follows_where_exif_turned_the_picture() -> None:
    turn = exif([(0x0112, 3, 1, b"\x06\0")])
    carried = Metadata(xmp=XMP, resolution=Resolution(300, 150))
    image = decode(encode(Image(PIXELS, exif=turn, metadata=carried)), name="a")
    assert image.pixels.shape == (9, 6, 3)
    wanted = XMP.replace(b'Orientation="6"', b'Orientation="1"').replace(b'Width="9"', b'Width="6"')
    assert image.metadata.xmp == wanted.replace(b">6</exif", b">9</exif")
    assert image.metadata.resolution is not None
    assert round(image.metadata.resolution.per("inch").across) == 150


def test_tiff_keeps_date_author_gps_and_its_own_tags() -> None:
    buffer = io.BytesIO()
    extra = [
        (0x0132, "s", 0, "2026:01:02 03:04:05", True),
        (0x013B, "s", 0, "Anon", True),
        (0x8298, "s", 0, "(c) Anon", True),
        (0x83BB, "B", len(IPTC), IPTC, True),
        (33550, "d", 3, (1.0, 2.0, 0.0), True),
        (0x0112, "H", 1, 6, True),
    ]
    for dtype in (np.uint8, np.uint16):
        order: Literal["<", ">"] = "<" if dtype is np.uint8 else ">"
        tifffile.imwrite(
            buffer, PIXELS.astype(dtype), photometric="rgb", byteorder=order, extratags=extra,
            resolution=(300, 150), resolutionunit=2, metadata=None, description="a dark room",
        )  # fmt: skip
        again = encode(decode(buffer.getvalue(), name="a"))
        with tifffile.TiffFile(io.BytesIO(again)) as file:
            tags = {tag.code: tag.value for tag in file.pages.first.tags.values()}
            assert file.pages.first.asarray().shape == (9, 6, 3)
        assert (tags[0x0132], tags[0x013B], tags[0x8298]) == (extra[0][3], "Anon", "(c) Anon")
        assert (tags[270], tags[33550]) == ("a dark room", (1.0, 2.0, 0.0))
        assert (tags[282], tags[283], tags[296]) == ((150, 1), (300, 1), 2)
        assert bytes(tags[0x83BB]) == IPTC
        assert tags.get(0x0112, 1) == 1


def test_exif_and_gps_go_from_jpeg_to_tiff_and_back() -> None:
    written = PIL.Image.Exif()
    written[0x013B] = "Anon"
    written.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    written.get_ifd(0x8825)[2] = (48.0, 30.0, 0.0)
    image = decode(saved(PIL.Image.fromarray(PIXELS), "JPEG", exif=written), name="a")
    tiff = encode(image, format="TIFF")
    for data in (tiff, encode(decode(tiff, name="b"), format="JPEG")):
        found = PIL.Image.open(io.BytesIO(data)).getexif()
        assert found[0x013B] == "Anon"
        assert found.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        assert found.get_ifd(0x8825)[2] == (48.0, 30.0, 0.0)


def test_what_is_left_behind_is_named() -> None:
    data = with_segments(
        jpeg(),
        segment(0xE2, b"MPF\0" + bytes(20)),
        segment(0xEB, b"JP\0\x01jumb"),
        segment(0xE5, b"RMETA\0x"),
        segment(0xFE, b"a comment"),
    )
    image = decode(data + b"\0\0the second picture", name="a")
    assert image.metadata.dropped == (
        "further pictures (MPF)",
        "content credentials (JUMBF)",
        "APP5 RMETA",
        "18 bytes after the picture",
    )
    assert left_behind(image, "BMP")[-1] == "comments"
    ancillary = chunk(b"sBIT", b"\5\5\5") + chunk(b"prVt", b"safe") + chunk(b"prVT", b"not")
    image = decode(png(PIXELS, depth=8, colour=2, chunks=ancillary), name="b")
    assert image.metadata.dropped == ("PNG chunk sBIT", "PNG chunk prVT")
    assert image.metadata.others == ((b"prVt", b"safe"),)


@pytest.mark.parametrize(
    "chunks",
    [P3, ((b"cICP", bytes([12, 13, 0, 1])),)],
    ids=["gAMA and cHRM", "cICP"],
)
def test_colour_as_png_says_it_becomes_a_profile(chunks: tuple[tuple[bytes, bytes], ...]) -> None:
    """Display P3: its green and a mid grey, by LittleCMS and by the standard's own figures."""
    profile = profiles.from_png(chunks, grey=False)
    assert profile is not None
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    colours = PIL.Image.new("RGB", (2, 1))
    colours.putpixel((0, 0), (255, 255, 255))
    colours.putpixel((1, 0), (200, 150, 100))
    done = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"))
    assert done is not None
    assert np.abs(np.array(done.getpixel((0, 0))) - 255).max() <= 1
    # linear P3 -> linear sRGB by the matrix of CSS Color 4, section 18
    matrix = np.array([[1.2249, -0.2249, 0.0], [-0.0420, 1.0420, 0.0], [-0.0197, -0.0786, 1.0983]])
    decoded = (np.array([200, 150, 100]) / 255) ** 2.2
    coded = np.clip(matrix @ decoded, 0, 1) ** (1 / 2.2) * 255
    assert np.abs(np.array(done.getpixel((1, 0))) - coded).max() <= 3


def test_srgb_needs_no_profile_and_pq_has_none() -> None:
    for chunks in (((b"sRGB", b"\0"),), ((b"cICP", bytes([1, 13, 0, 1])),)):
        image = Image(PIXELS, metadata=Metadata(colour=chunks))
        assert decode(encode(image, format="JPEG"), name="a").icc is None
        assert left_behind(image, "JPEG") == ()
    wide = Image(PIXELS, metadata=Metadata(colour=((b"cICP", bytes([9, 16, 0, 1])),)))
    assert left_behind(wide, "JPEG") == ("colour space",)
    assert decode(encode(wide), name="b").metadata.colour == wide.metadata.colour


def test_large_profiles_and_resources_fill_several_segments() -> None:
    profile, resources = SRGB + bytes(200_000), RESOURCES + b"8BIM\x10\0\0\0\0\1\0\0" + bytes(65536)
    image = Image(PIXELS, "JPEG", icc=profile, metadata=Metadata(photoshop=resources))
    again = decode(encode(image), name="a")
    assert again.icc == profile
    assert again.metadata.photoshop == resources


def test_jfif_density_and_phys_are_exact() -> None:
    for resolution, format in (
        (Resolution(300, 150), "JPEG"),
        (Resolution(118, 59, "cm"), "JPEG"),
        (Resolution(2, 1, "none"), "JPEG"),
        (Resolution(11811, 5906, "metre"), "PNG"),
        (Resolution(4, 3, "none"), "PNG"),
        (Resolution(300.5, 72, "inch"), "TIFF"),
    ):
        image = Image(PIXELS, format, metadata=Metadata(resolution=resolution))
        assert decode(encode(image), name="a").metadata.resolution == resolution


def test_photoshop_thumbnails_are_left_behind() -> None:
    block = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 4) + b"tiny" + RESOURCES
    data = with_segments(jpeg(), segment(0xED, b"Photoshop 3.0\0" + block))
    extra = [(34377, "B", len(block), block, True)]
    for file in (data, saved_as_tiff(extra)):
        image = decode(file, name="a")
        assert image.metadata.photoshop == RESOURCES
        assert image.metadata.dropped == ("Photoshop thumbnail",)


def saved_as_tiff(
    extra: Sequence[tuple[int, int | str, int, object, bool]], subifds: int = 0
) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(PIXELS, photometric="rgb", metadata=None, extratags=extra, subifds=subifds)
        if subifds:
            file.write(PIXELS[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
    return buffer.getvalue()


def test_what_means_or_holds_the_samples_of_a_tiff_is_left_behind_and_named() -> None:
    layers = b"Adobe Photoshop Document Data Block\0" + b"dark layers" * 30
    data = saved_as_tiff(
        [
            (37724, 7, len(layers), layers, True),
            (301, "H", 6, (0, 1, 2, 3, 4, 5), True),
        ],
        subifds=1,
    )
    image = decode(data, name="a")
    assert image.metadata.dropped == (
        "TIFF transfer function",
        "further pictures (SubIFDs)",
        "Photoshop layers",
    )
    for format in FORMATS:
        assert b"dark layers" not in encode(image, format=format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [1e-9, 1.3, 5000.33, 4e9, 1e18])
def test_absurd_resolutions_spoil_no_picture(format: str, value: float) -> None:
    for unit in ("inch", "metre", "none"):
        carried = Metadata(resolution=Resolution(value, 1.0, unit))
        image = decode(encode(Image(PIXELS, format, metadata=carried)), name="a")
        assert image.pixels.shape == PIXELS.shape


def test_a_comment_keeps_its_letters_in_a_png() -> None:
    for text, kind in (("a room", "ascii"), ("夜é", "utf-8"), ("é", "latin-1")):
        data = with_segments(jpeg(), segment(0xFE, text.encode(kind) + b"\0"))
        written = PIL.Image.open(io.BytesIO(encode(decode(data, name="a"), format="PNG")))
        written.load()
        assert written.info["Comment"] == text


def test_bytes_behind_any_picture_are_named() -> None:
    for format in ("PNG", "WEBP", "JPEG"):
        data = saved(PIL.Image.fromarray(PIXELS), format)
        assert decode(data + bytes(8), name="a").metadata.dropped == ()
        behind = decode(data + b"trailer!" * 20, name="a").metadata.dropped
        assert behind == ("160 bytes after the picture",)


def test_damaged_xmp_profiles_in_bmp_and_thumbnails_are_named() -> None:
    broken = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0 no stream")
    image = decode(png(PIXELS, depth=8, colour=2, chunks=broken), name="a")
    assert image.metadata.dropped == ("XMP that is damaged",)
    plain = saved(PIL.Image.fromarray(PIXELS), "BMP")
    header = struct.pack("<I", 124) + plain[18:54] + bytes(16) + b"DEBM" + bytes(64)
    data = plain[:10] + struct.pack("<I", 14 + 124) + header + plain[54:]
    assert decode(data, name="b").metadata.dropped == ("colour profile",)
    block = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 1, 26)
    block += struct.pack("<HHHIII", 1, 0x0103, 3, 1, 6, 0)
    image = decode(saved(PIL.Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0" + block), name="c")
    assert left_behind(image, "TIFF") == ("EXIF thumbnail",)
    assert left_behind(image, "PNG") == ()
