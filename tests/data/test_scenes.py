from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mirnet.data.alignment import align
from mirnet.data.manifest import build_manifest
from mirnet.data.measures import luminance, measure_file, noise_sigma_robust
from mirnet.data.samples import PHOTOGRAPHS, photograph_path
from mirnet.data.scenes import TWIN, clusters, find_twins, similarity
from mirnet.data.splits import split_pairs, val_stands_in
from mirnet.errors import DataError
from mirnet.params import ValidateParams


def photo(number: int) -> Image.Image:
    return Image.open(photograph_path(PHOTOGRAPHS[number])).convert("RGB")


def thumb(picture: Image.Image) -> bytes:
    small = picture.convert("L").resize((64, 64), Image.Resampling.BOX)
    return np.asarray(small).tobytes()


def encoded(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def test_different_photographs_are_no_twins() -> None:
    assert find_twins([thumb(photo(n)) for n in range(len(PHOTOGRAPHS))]) == []
    assert find_twins([thumb(photo(0))]) == []


@pytest.mark.parametrize("number", range(len(PHOTOGRAPHS)))
def test_twins_after_encoding_resizing_and_cropping(number: int) -> None:
    original = photo(number)
    width, height = original.size
    corner = original.crop((0, 0, int(width * 0.88), int(height * 0.93)))
    middle = original.crop((width // 20, height // 20, width - width // 20, height - height // 20))
    changed = [encoded(original), original.resize((150, 130)), encoded(corner), middle]
    others = [thumb(photo(n)) for n in range(len(PHOTOGRAPHS)) if n != number]
    twins = find_twins([thumb(original), *map(thumb, changed), *others])
    joined = clusters(5 + len(others), twins)
    assert set(np.flatnonzero(joined == joined[0])) == {0, 1, 2, 3, 4}
    assert all(similarity(thumb(original), thumb(one)) > TWIN for one in changed)


def test_made_shift_is_measured() -> None:
    grey = luminance(np.asarray(photo(0)))
    for right, down in ((0, 0), (3, 0), (0, -5), (7, 4)):
        top, left = 20 - down, 20 - right
        low = grey[top : top + 400, left : left + 400] / np.float32(16)
        found = align(low, grey[20:420, 20:420])
        assert found.alignment is not None
        assert found.alignment > 0.9
        assert found.shift_x == pytest.approx(right, abs=0.6)
        assert found.shift_y == pytest.approx(down, abs=0.6)


def test_unrelated_and_empty_pictures_do_not_align() -> None:
    first, second = (luminance(np.asarray(photo(n)))[:400, :400] for n in (0, 1))
    size = min(first.shape[0], second.shape[0]), min(first.shape[1], second.shape[1])
    found = align(first[: size[0], : size[1]], second[: size[0], : size[1]])
    assert found.alignment is not None
    assert found.alignment < 0.2
    flat = np.zeros((200, 200), np.float32)
    assert align(flat, flat).alignment is None
    assert align(flat, flat[:100]).alignment is None


def test_noise_is_measured_through_structure() -> None:
    rng = np.random.default_rng(0)
    grey = np.clip(luminance(np.asarray(photo(0))), 40, 215)
    noise = rng.normal(0, 10, grey.shape).astype(np.float32)
    assert noise_sigma_robust(grey + noise) == pytest.approx(10, rel=0.1)


def test_facts_by_hand(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = (255, 255, 255)
    pixels[:10, :100] = (0, 100, 0)
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    facts, grey = measure_file(path)
    assert grey is not None
    assert (facts.width, facts.height, facts.mode, facts.bits) == (200, 100, "RGB", 8)
    assert facts.clipped == 0.5
    assert facts.mean == pytest.approx(127.5 + 58.7 * 0.05, abs=0.01)
    assert (facts.p01, facts.p99) == (0, 255)
    assert (facts.red, facts.green) == pytest.approx((127.5, 132.5))
    Image.fromarray(pixels).save(path, compress_level=9)
    assert measure_file(path)[0].pixels == facts.pixels


def test_manifest_is_measured_once(dataset: Path, tmp_path: Path, caplog: object) -> None:
    first = build_manifest(dataset, cache_dir=tmp_path / "cache")
    (dataset / "our485/low/rocket-01.png").rename(dataset / "our485/low/moved.png")
    (dataset / "our485/high/rocket-01.png").rename(dataset / "our485/high/moved.png")
    caplog.set_level("INFO")  # type: ignore[attr-defined]
    again = build_manifest(dataset, cache_dir=tmp_path / "cache")
    assert "0 of 16 pairs are to be measured" in caplog.text  # type: ignore[attr-defined]
    columns = ["low_pixels", "alignment", "high_noise"]
    before = first.loc[first["pair"] == "our485/rocket-01.png", columns]
    after = again.loc[again["pair"] == "our485/moved.png", columns]
    assert len(after) == 1
    pd.testing.assert_frame_equal(before.reset_index(drop=True), after.reset_index(drop=True))
    alone = build_manifest(dataset, num_processes=1)
    pd.testing.assert_frame_equal(alone, again)


def test_broken_cache_is_measured_anew(dataset: Path, tmp_path: Path) -> None:
    first = build_manifest(dataset, cache_dir=tmp_path)
    (cache,) = tmp_path.glob("measured-*.parquet")
    cache.write_bytes(b"broken")
    pd.testing.assert_frame_equal(build_manifest(dataset, cache_dir=tmp_path), first)


def test_source_table_joins_scenes(dataset: Path) -> None:
    table = build_manifest(dataset)
    by_photo = table.groupby(table["name"].str.rsplit("-", n=1).str[0])["scene"].nunique()
    assert (by_photo == 1).all()
    (dataset / "pairs.csv").write_text("what,is\nthis,table\n")
    with pytest.raises(DataError, match=r"pairs\.csv: expected a table"):
        build_manifest(dataset)


def manifest_of(scenes: list[int], *, num_eval: int = 2) -> pd.DataFrame:
    rows = [("our485", f"{i}.png", f"scene{s}") for i, s in enumerate(scenes)]
    rows += [("eval15", f"{i}.png", f"eval{i}") for i in range(num_eval)]
    table = pd.DataFrame(rows, columns=["split", "name", "scene"])
    return table.assign(pair=table["split"] + "/" + table["name"], kind="pair")


@given(
    scenes=st.lists(st.integers(0, 20), min_size=2, max_size=80).filter(lambda s: len(set(s)) > 1),
    seed=st.integers(0, 5),
    fraction=st.floats(0.05, 0.8),
)
@settings(max_examples=40, deadline=None)
def test_scenes_never_straddle(scenes: list[int], seed: int, fraction: float) -> None:
    table = manifest_of(scenes)
    params = ValidateParams(seed=seed, val_fraction=fraction)
    roles = split_pairs(table, params)
    assert roles == split_pairs(table.sample(frac=1, random_state=1), params)
    scene = table.set_index("pair")["scene"]
    assert not set(scene[list(roles["train"])]) & set(scene[list(roles["val"])])
    assert roles["train"]
    assert roles["val"]
    assert sorted((*roles["train"], *roles["val"])) == sorted(
        p for p in table["pair"] if p.startswith("our485")
    )
    assert roles["eval"] == ("eval15/0.png", "eval15/1.png")
    assert not val_stands_in(roles)


def test_share_and_seed_of_the_split() -> None:
    table = manifest_of(list(range(100)))
    splits = [split_pairs(table, ValidateParams(seed=seed))["val"] for seed in range(3)]
    assert [len(val) for val in splits] == [10, 10, 10]
    assert len(set(splits)) == 3


def test_a_scene_of_most_pairs_does_not_become_the_validation_split() -> None:
    table = manifest_of([0] * 70 + list(range(1, 31)))
    for seed in range(40):
        assert 8 <= len(split_pairs(table, ValidateParams(seed=seed))["val"]) <= 12


def test_where_all_scenes_are_large_the_smallest_is_taken() -> None:
    table = manifest_of([0] * 40 + [1] * 30 + [2] * 35)
    sizes = {len(split_pairs(table, ValidateParams(seed=seed))["val"]) for seed in range(10)}
    assert sizes <= {30, 35}  # the last in the order is left to train on


def test_val_stands_in_where_eval_is_missing() -> None:
    roles = split_pairs(manifest_of([1, 2, 3, 4], num_eval=0), ValidateParams())
    assert roles["eval"] == roles["val"]
    assert val_stands_in(roles)
