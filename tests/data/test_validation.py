"""Each defect is made on purpose and must be found by name."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mirnet.config import Settings
from mirnet.data.layout import SIDES
from mirnet.data.manifest import build_manifest
from mirnet.data.validation import judge, validate_data
from mirnet.errors import DataError
from mirnet.images import Image as Picture, encode
from mirnet.params import ValidateParams
from mirnet.results import ValidationResult

ONE = "our485/astronaut-01.png"
OTHER = "our485/rocket-01.png"
EVAL = "eval15/coffee-01.png"


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: only what a test breaks is measured again."""
    return tmp_path_factory.mktemp("cache")


def path_of(root: Path, pair: str, side: str) -> Path:
    split, _, name = pair.partition("/")
    return root / split / side / name


def read(root: Path, pair: str, side: str) -> np.ndarray:
    return np.asarray(Image.open(path_of(root, pair, side)))


def write(root: Path, pair: str, side: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path_of(root, pair, side))


def copy_pair(root: Path, source: str, target: str) -> None:
    for side in SIDES:
        shutil.copy(path_of(root, source, side), path_of(root, target, side))


def remove(side: str) -> Callable[[Path], None]:
    return lambda root: path_of(root, ONE, side).unlink()


def change_size(root: Path) -> None:
    write(root, ONE, "low", read(root, ONE, "low")[:100])


def swap(root: Path) -> None:
    low, high = (path_of(root, ONE, side).read_bytes() for side in SIDES)
    path_of(root, ONE, "low").write_bytes(high)
    path_of(root, ONE, "high").write_bytes(low)


def same_picture(root: Path) -> None:
    # encoded anew: other bytes, same pixels
    Image.open(path_of(root, ONE, "high")).save(path_of(root, ONE, "low"), compress_level=9)


def truncate(root: Path) -> None:
    path = path_of(root, ONE, "high")
    path.write_bytes(path.read_bytes()[:4000])


def corrupt(root: Path) -> None:
    path_of(root, ONE, "low").write_bytes(b"this was a picture once" * 100)


def empty(root: Path) -> None:
    path_of(root, ONE, "low").write_bytes(b"")


def convert(mode: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = path_of(root, ONE, "low")
        format = "TIFF" if mode == "CMYK" else "PNG"
        Image.open(path).convert(mode).save(path, format)

    return spoil


def sixteen_bit(root: Path) -> None:
    wide = read(root, ONE, "high").astype(np.uint16) * 257
    path_of(root, ONE, "high").write_bytes(encode(Picture(pixels=wide)))


def shrink(root: Path) -> None:
    for side in SIDES:
        write(root, ONE, side, read(root, ONE, side)[:64, :64])


def blacken(root: Path) -> None:
    write(root, ONE, "low", read(root, ONE, "low") // 32)


def bleach(root: Path) -> None:
    high = read(root, ONE, "high").astype(int)
    write(root, ONE, "high", np.clip(high * 3, 0, 255).astype(np.uint8))


def mismatch(root: Path) -> None:
    write(root, ONE, "low", read(root, OTHER, "low"))


def shift(root: Path) -> None:
    write(root, ONE, "low", read(root, ONE, "low")[:-3, :-2])
    write(root, ONE, "high", read(root, ONE, "high")[3:, 2:])


def duplicate(root: Path) -> None:
    copy_pair(root, ONE, "our485/zzz.png")


def exact_leak(root: Path) -> None:
    copy_pair(root, ONE, "eval15/zzz.png")


def reference_leak(root: Path) -> None:
    copy_pair(root, EVAL, "our485/zzz.png")
    dark = read(root, EVAL, "low") // 2
    write(root, "our485/zzz.png", "low", dark)


def jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def near_leak(change: Callable[[Image.Image], Image.Image]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        for side in SIDES:
            picture = change(Image.open(path_of(root, EVAL, side)))
            picture.save(path_of(root, "our485/zzz.png", side))

    return spoil


def stray(root: Path) -> None:
    (root / "our485/low/Thumbs.db").write_bytes(b"x")


def no_eval_pairs(root: Path) -> None:
    for side in SIDES:
        for path in (root / "eval15" / side).iterdir():
            path.unlink()


def upper_case(root: Path) -> None:
    copy_pair(root, OTHER, ONE.replace("astronaut", "Astronaut"))


DEFECTS: list[tuple[str, Callable[[Path], None], str, str, str]] = [
    ("missing-low", remove("low"), "critical", ONE, "low/astronaut-01.png is missing"),
    ("missing-high", remove("high"), "critical", ONE, "high/astronaut-01.png is missing"),
    ("size-mismatch", change_size, "critical", ONE, "128x100 and 128x128"),
    ("swapped", swap, "critical", ONE, "look swapped"),
    ("identical", same_picture, "critical", ONE, "the same image"),
    ("high-unreadable", truncate, "critical", ONE, "high/astronaut-01.png"),
    ("low-unreadable", corrupt, "critical", ONE, "low/astronaut-01.png"),
    ("low-unreadable", empty, "critical", ONE, "empty"),
    ("low-mode", convert("L"), "critical", ONE, "stored as L"),
    ("low-mode", convert("RGBA"), "critical", ONE, "stored as RGBA"),
    ("low-mode", convert("P"), "critical", ONE, "stored as P"),
    ("low-mode", convert("CMYK"), "critical", ONE, "stored as CMYK"),
    ("high-bits", sixteen_bit, "critical", ONE, "16 bits per channel"),
    ("low-too-small", shrink, "critical", ONE, "64 pixels on its shorter side"),
    ("nearly-black", blacken, "warning", ONE, "nearly black"),
    ("saturated", bleach, "warning", ONE, "saturated"),
    ("misaligned", mismatch, "warning", ONE, "misaligned or unrelated"),
    ("misaligned-shift", shift, "warning", ONE, "misaligned by"),
    ("duplicate", duplicate, "warning", "our485/zzz.png", ONE),
    ("leak-exact", exact_leak, "critical", "eval15/zzz.png", ONE),
    ("leak-exact", reference_leak, "critical", EVAL, "our485/zzz.png"),
    ("leak-near", near_leak(jpeg), "warning", EVAL, "our485/zzz.png"),
    ("leak-near", near_leak(lambda p: p.resize((160, 160))), "warning", EVAL, "our485/zzz.png"),
    (
        "leak-near",
        near_leak(lambda p: jpeg(p.crop((9, 0, 128, 116)).resize((256, 256)))),
        "warning",
        EVAL,
        "our485/zzz.png",
    ),
    ("stray", stray, "warning", "our485/low/Thumbs.db", "does not belong"),
    ("empty-split", no_eval_pairs, "critical", "eval15", "no pairs"),
    ("case-clash", upper_case, "critical", ONE, "upper and lower case"),
]


@pytest.mark.parametrize(
    ("check", "spoil", "severity", "pair", "message"),
    DEFECTS,
    ids=[f"{check}-{number}" for number, (check, *_) in enumerate(DEFECTS)],
)
def test_defect_is_found_by_name(
    check: str,
    spoil: Callable[[Path], None],
    severity: str,
    pair: str,
    message: str,
    dataset: Path,
    cache_dir: Path,
) -> None:
    # test_good_data_pass_and_are_split shows that nothing is found before
    spoil(dataset)
    manifest = build_manifest(dataset, cache_dir=cache_dir)
    findings = judge(manifest, ValidateParams(max_flagged_share=0.5))
    (found,) = [f for f in findings if (f.check, f.pair) == (check, pair)]
    assert found.severity == severity
    assert pair in found.message
    assert message in found.message
    assert found.value is not None


def validated(root: Path, settings: Settings, **params: object) -> ValidationResult:
    return validate_data(
        root,
        ValidateParams.model_validate(params),
        reports_dir=settings.reports_dir,
        settings=settings,
    )


def test_good_data_pass_and_are_split(dataset: Path, settings: Settings) -> None:
    result = validated(dataset, settings)
    assert result.passed
    assert not result.findings
    assert result.num_pairs == {"eval15": 4, "our485": 12}
    assert {role: len(ids) for role, ids in result.splits.items()} == {
        "train": 10,
        "val": 2,
        "eval": 4,
    }
    assert result.version.digest.endswith(".dir")


def test_many_warnings_block(dataset: Path, settings: Settings) -> None:
    for pair in (ONE, OTHER):
        write(dataset, pair, "low", np.zeros_like(read(dataset, pair, "low")))
    result = validated(dataset, settings)
    (found,) = [f for f in result.findings if f.severity == "critical"]
    assert found.check == "nearly-black-share"
    assert found.value == pytest.approx(2 / 16)
    assert ONE in found.message
    assert OTHER in found.message
    assert validated(dataset, settings, max_flagged_share=0.2).passed


def test_accepted_checks_only_warn(dataset: Path, settings: Settings) -> None:
    exact_leak(dataset)
    assert not validated(dataset, settings).passed
    result = validated(dataset, settings, accept=("leak-exact",))
    assert result.passed
    assert ("leak-exact", "warning") in {(f.check, f.severity) for f in result.findings}


def test_one_scene_cannot_be_split(dataset: Path, settings: Settings) -> None:
    for side in SIDES:
        for path in (dataset / "our485" / side).iterdir():
            if not path.name.startswith("rocket"):
                path.unlink()
    result = validated(dataset, settings)
    assert not result.passed
    assert [f.check for f in result.findings] == ["splits"]


def test_missing_folder(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        validated(tmp_path / "nowhere", settings)


def test_real_pairs(lol_dir: Path, settings: Settings) -> None:
    result = validated(lol_dir, settings)
    assert result.passed
    assert {(f.check, f.pair) for f in result.findings} == {
        ("nearly-black", "our485/141.png"),
        ("nearly-black", "our485/142.png"),
        ("misaligned", "our485/648.png"),
    }
    assert result.splits["eval"] == result.splits["val"]
    assert result.version.digest == "38ae1be7e4e055e560896ebb14d57c71.dir"
