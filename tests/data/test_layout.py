from __future__ import annotations

from pathlib import Path

import pytest

from mirnet.data.layout import find_pairs, scan
from mirnet.data.loading import load_pairs, pair_paths
from mirnet.errors import DataError, ImageError


def test_pairs_are_matched_by_name_not_by_order(dataset: Path) -> None:
    (dataset / "our485/low/astronaut-01.png").unlink()
    (dataset / "our485/high/rocket-02.png").unlink()
    layout = scan(dataset)
    assert all(pair.low_path.name == pair.high_path.name for pair in layout.pairs)
    assert layout.num_pairs == {"eval15": 4, "our485": 10}
    assert [str(p.relative_to(dataset)) for p in layout.missing] == [
        "our485/high/rocket-02.png",
        "our485/low/astronaut-01.png",
    ]


def test_missing_partner_is_named(dataset: Path) -> None:
    (dataset / "eval15/low/coffee-01.png").unlink()
    with pytest.raises(DataError, match=r"eval15/low/coffee-01\.png is missing"):
        find_pairs(dataset)


def test_strays_and_empty_splits(dataset: Path) -> None:
    (dataset / "our485/low/Thumbs.db").write_bytes(b"x")
    (dataset / "eval15/high/deep").mkdir()
    (dataset / "eval15/high/deep/1.png").write_bytes(b"x")
    for folder in ("extra/low", "extra/high"):
        (dataset / folder).mkdir(parents=True)
    layout = scan(dataset)
    assert [p.name for p in layout.strays] == ["1.png", "Thumbs.db"]
    assert layout.empty_splits == ("extra",)
    assert layout.num_pairs["extra"] == 0


def test_no_folder_and_no_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no split folder"):
        scan(tmp_path)


def test_pixels_come_in_the_order_of_the_ids(dataset: Path) -> None:
    ids = [pair.id for pair in find_pairs(dataset)][::-1]
    loaded = load_pairs(dataset, ids)
    assert len(loaded) == len(ids)
    for low, high in loaded:
        assert low.shape == high.shape == (128, 128, 3)
        assert low.mean() < high.mean()
    again = load_pairs(dataset, ids[3:4], num_threads=1)[0]
    assert (again[0] == loaded[3][0]).all()


def test_loading_names_what_is_wrong(dataset: Path) -> None:
    with pytest.raises(ImageError, match=r"our485/low/none\.png"):
        load_pairs(dataset, ["our485/none.png"])
    for bad in ("1.png", "our485/", "../x.png", "a/b/c.png"):
        with pytest.raises(DataError, match="no pair id"):
            pair_paths(dataset, bad)
