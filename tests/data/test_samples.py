from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mirnet.data.checks import names
from mirnet.data.layout import find_pairs
from mirnet.data.samples import PHOTOGRAPHS, make_sample_data, sources_table
from mirnet.data.versioning import take_snapshot
from mirnet.errors import DataError


def test_same_seed_same_bytes(pristine: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    make_sample_data(again, seed=3, num_train=12, num_eval=4, size=128)
    make_sample_data(other, seed=4, num_train=12, num_eval=4, size=128)
    assert take_snapshot(again).digest == take_snapshot(pristine).digest
    assert take_snapshot(other).digest != take_snapshot(pristine).digest


def test_train_and_eval_share_no_photograph(pristine: Path) -> None:
    with (pristine / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["pair"] for row in rows} == {pair.id for pair in find_pairs(pristine)}
    by_split: dict[str, set[str]] = {"our485": set(), "eval15": set()}
    for row in rows:
        by_split[row["pair"].split("/")[0]].add(row["source"])
        assert 0.02 <= float(row["exposure"]) <= 0.4
    assert not by_split["our485"] & by_split["eval15"]
    assert by_split["our485"] | by_split["eval15"] == {photo.name for photo in PHOTOGRAPHS}


def test_sources_and_licences_lie_beside_the_pairs(pristine: Path) -> None:
    text = (pristine / "SOURCES.md").read_text()
    for photo in PHOTOGRAPHS:
        assert photo.name in text
        assert photo.licence in text


def test_nothing_of_somebody_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="no sample set"):
        make_sample_data(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_docs_list_the_same_sources() -> None:
    docs = (Path(__file__).parents[2] / "docs/data.md").read_text()
    rows = [line for line in sources_table().splitlines() if line.startswith("|")]
    assert [row for row in rows if row not in docs] == []


def test_docs_list_every_check() -> None:
    docs = (Path(__file__).parents[2] / "docs/data.md").read_text()
    assert [name for name in names() if f"`{name.removesuffix('-share')}`" not in docs] == []
