"""A share is of all pairs that a check could judge, and one more than it allows blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mirnet.data.checks import DataCheck
from mirnet.data.manifest import build_manifest
from mirnet.data.measures import THUMB_SIDE
from mirnet.data.validation import judge
from mirnet.errors import DataError
from mirnet.params import ValidateParams

KNOWN_BAD = {
    "nearly-black": {"141", "142", "172"},
    "misaligned": {"648"},
    "misaligned-shift": {"570", "700", "701"},
}


@pytest.fixture(scope="module")
def good_pair(pristine: Path) -> pd.DataFrame:
    """The measured facts of one pair with nothing wrong."""
    manifest = build_manifest(pristine)
    return manifest[(manifest["kind"] == "pair") & (manifest["split"] == "our485")].iloc[:1]


def table_of(good_pair: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many good pairs, each of a scene and content of its own."""
    table = pd.concat([good_pair] * count, ignore_index=True)
    names = [f"our485/{number}.png" for number in range(count)]
    return table.assign(
        pair=names, scene=names, low_pixels=names, high_pixels=[f"high {n}" for n in names]
    )


def blacken(table: pd.DataFrame, rows: slice) -> None:
    table.loc[rows, "low_p99"] = 5.0


def saturate(table: pd.DataFrame, rows: slice) -> None:
    table.loc[rows, "high_clipped"] = 0.6


def unrelate(table: pd.DataFrame, rows: slice) -> None:
    table.loc[rows, ["alignment", "in_place"]] = 0.05


def shift(table: pd.DataFrame, rows: slice) -> None:
    table.loc[rows, ["alignment", "in_place", "shift_x", "shift_y"]] = (0.9, 0.8, 0.3, -4.0)


SPOILERS: dict[str, Callable[[pd.DataFrame, slice], None]] = {
    "nearly-black": blacken,
    "saturated": saturate,
    "misaligned": unrelate,
    "misaligned-shift": shift,
}


def first(count: int) -> slice:
    return slice(0, count - 1)  # .loc includes the end


def severities(table: pd.DataFrame, **params: object) -> dict[str, int]:
    """How many findings of each check; only those of a set are critical here."""
    findings = judge(table, ValidateParams.model_validate(params))
    assert {f.severity for f in findings if f.pair == "*"} <= {"critical"}
    assert {f.severity for f in findings if f.pair != "*"} <= {"warning"}
    names = [finding.check for finding in findings]
    return {name: names.count(name) for name in names}


def spoil_all(table: pd.DataFrame, count: int) -> None:
    """So many bad pairs of each kind; unrelated and shifted ones are different pairs."""
    for check, spoil in SPOILERS.items():
        start = 100 if check == "misaligned" else 0
        spoil(table, slice(start, start + count - 1))


@pytest.mark.parametrize("bad", [1, 10, 49, 50, 51])
def test_more_than_a_tenth_blocks(bad: int, good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 500)
    spoil_all(table, bad)
    blocked = {f"{check}-share": 1 for check in SPOILERS} if bad > 50 else {}
    assert severities(table) == dict.fromkeys(SPOILERS, bad) | blocked


@pytest.mark.parametrize("count", [40, 48])
def test_one_bad_pair_warns(count: int, good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, count)
    assert severities(table) == {}
    shift(table, first(1))
    assert severities(table) == {"misaligned-shift": 1}


def test_what_cannot_be_judged_is_in_no_share(good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 240)
    spoil_all(table, 15)
    unreadable = slice(120, 239)
    facts = ["low_p99", "high_clipped", "alignment", "in_place", "shift_x", "shift_y"]
    table.loc[unreadable, facts] = None
    found = [f for f in judge(table, ValidateParams()) if f.pair == "*"]
    assert {f.check for f in found} == {f"{check}-share" for check in SPOILERS}
    for finding in found:
        assert finding.value == pytest.approx(15 / 120)
        assert "15 of 120 pairs (12.5%)" in finding.message


def test_unrelated_pairs_are_not_shifted(good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 20)
    unrelate(table, first(2))
    table.loc[first(2), ["in_place", "shift_x"]] = (0.0, 20.0)
    assert severities(table) == {"misaligned": 2}


def test_a_file_without_a_partner_is_in_no_share(good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 20)
    table.loc[first(10), "kind"] = "missing-high"
    blacken(table, slice(0, 10))
    findings = judge(table, ValidateParams())
    assert [f.pair for f in findings if f.check == "nearly-black"] == ["our485/10.png"]
    assert not [f for f in findings if f.check == "nearly-black-share"]


@pytest.mark.parametrize(
    ("share", "judged", "tolerated"),
    [
        (0.1, 500, 50),
        (0.58, 100, 58),  # 0.58 * 100 is 57.99... in binary
        (0.29, 100, 29),
        (0.1, 9, 0),
        (0.0, 500, 0),
        (1.0, 500, 500),
        (0.1, 0, 0),
    ],
)
def test_tolerated(share: float, judged: int, tolerated: int) -> None:
    assert DataCheck("any", "x", "", share=share).tolerated(judged) == tolerated


def test_a_share_of_nothing_allows_none(good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 20)
    shift(table, first(1))
    assert severities(table, max_flagged_share=0) == {
        "misaligned-shift": 1,
        "misaligned-shift-share": 1,
    }


def test_exactly_the_share_passes(good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 100)
    blacken(table, first(58))
    assert severities(table, max_flagged_share=0.58) == {"nearly-black": 58}


def test_a_scene_with_an_unreadable_reference_is_judged(good_pair: pd.DataFrame) -> None:
    table = table_of(good_pair, 20).assign(scene="one")
    table.loc[0, "split"] = "eval15"
    table["high_thumb"] = table["high_thumb"].astype(object)
    table.loc[1, "high_thumb"] = None
    found = [f for f in judge(table, ValidateParams()) if f.check == "leak-near"]
    assert [(f.pair, f.severity) for f in found] == [("our485/0.png", "warning")]
    assert "our485/2.png" in found[0].message


def test_all_pairs_of_lol_pass(lol_manifest: pd.DataFrame) -> None:
    findings = judge(lol_manifest, ValidateParams())
    named: dict[str, set[str]] = {}
    for finding in findings:
        assert finding.severity == "warning", finding.message
        named.setdefault(finding.check, set()).add(Path(finding.pair).stem)
    assert named == KNOWN_BAD


@pytest.fixture(scope="module")
def lol_manifest() -> pd.DataFrame:
    """The facts of all 500 pairs, without images, where the checkout has them beside it."""
    path = Path(__file__).parents[3] / "shared" / "lol-manifest.parquet"
    if not path.is_file():
        pytest.skip("no manifest of LoL beside this checkout")
    table = pd.read_parquet(path)
    if len(table) != 500:
        raise DataError(f"{path}: {len(table)} pairs, expected 500")
    return table.assign(high_thumb=[bytes(THUMB_SIDE**2)] * len(table))
