"""The list of checks of a data set. Critical findings block it, warnings are reported.

Each check reads one column of the table; rows where the column is empty could not be judged and are
not part of shares. A row without findings has a value. The thresholds are derived in
docs/benchmarks/data.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from mirnet.data.layout import EVAL_SPLIT, SIDES
from mirnet.data.scenes import similarity
from mirnet.params import ValidateParams

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class DataCheck:
    """Allowed values or bounds of one column; neither: the column must be empty."""

    name: str
    column: str
    message: str
    """Format string with the columns of the row, and ``value``."""
    severity: Severity = "critical"
    allowed: frozenset[str] | None = None
    minimum: float | None = None
    maximum: float | None = None
    share: float | None = None
    """Allowed share of judged rows that fail; with a share the check judges the whole set."""
    other: str | None = None
    """Column with the other pair, for checks of repetition."""

    @property
    def requirement(self) -> str:
        """What the column must be, for people."""
        if self.allowed is not None:
            required = f"one of {', '.join(sorted(self.allowed))}"
        elif self.minimum is None and self.maximum is None:
            required = "empty"
        elif self.minimum == self.maximum:
            required = f"{self.minimum:g}"
        else:
            bounds = (("at least", self.minimum), ("at most", self.maximum))
            required = ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return required if self.share is None else f"{required}; at most {self.share:.0%} fail"

    def tolerated(self, judged: int) -> int:
        """Allowed number of failing rows among the judged ones: ``count / judged <= share``."""
        if self.share is None:
            return 0
        # compares quotients: a product such as 0.58 * 100 is less than 58
        most = int(self.share * judged)
        return most + 1 if most < judged and (most + 1) / judged <= self.share else most


_KINDS = frozenset({"pair", "missing-low", "missing-high", "empty-split", "stray"})
GAIN = 0.01
"""Correlation that a shift must add before it counts; derived in docs/benchmarks/data.md."""
# Published data, unchanged by their digest: their known defects are reported and do not block.
_PUBLISHED = {"d48f655e14b913db367785d6acd73c6a.dir": frozenset({"leak-exact"})}


def checks(params: ValidateParams, *, digest: str | None = None) -> list[DataCheck]:
    """All checks with their bounds, for the data set with this digest."""
    accepted = frozenset(params.accept) | _PUBLISHED.get(digest or "", frozenset())
    every = [*_completeness(), *_readability(params), *_pairing(params), *_repetition()]
    return [
        replace(check, severity="warning") if check.name in accepted else check for check in every
    ]


def names() -> list[str]:
    return [check.name for check in checks(ValidateParams())]


def _completeness() -> Iterator[DataCheck]:
    for kind, message in (
        ("missing-low", "low/{name} is missing"),
        ("missing-high", "high/{name} is missing"),
        ("empty-split", "the split has no pairs"),
    ):
        yield DataCheck(kind, "kind", message, allowed=_KINDS - {kind})
    yield DataCheck(
        "stray",
        "kind",
        "the file does not belong here",
        severity="warning",
        allowed=_KINDS - {"stray"},
    )
    yield DataCheck(
        "case-clash",
        "case_clash",
        "differs from {value} in upper and lower case only: one of them is lost on other systems",
        other="case_clash",
    )


def _readability(params: ValidateParams) -> Iterator[DataCheck]:
    for side in SIDES:
        file = f"{side}/{{name}}"
        yield DataCheck(f"{side}-unreadable", f"{side}_error", f"{file}: {{value}}")
        yield DataCheck(
            f"{side}-mode",
            f"{side}_mode",
            f"{file} is stored as {{value}}: convert it to RGB",
            allowed=frozenset({"RGB"}),
        )
        yield DataCheck(
            f"{side}-bits",
            f"{side}_bits",
            f"{file} has {{value:.0f}} bits per channel: convert it to 8",
            minimum=8,
            maximum=8,
        )
        yield DataCheck(
            f"{side}-too-small",
            f"{side}_min_side",
            f"{file} has {{value:.0f}} pixels on its shorter side, "
            f"fewer than {params.min_side} (validate.min_side)",
            minimum=params.min_side,
        )


def _pairing(params: ValidateParams) -> Iterator[DataCheck]:
    yield DataCheck("size-mismatch", "size_mismatch", "low and high differ in size: {value}")
    yield DataCheck("identical", "identical", "low and high are the same image")
    yield DataCheck(
        "swapped",
        "contrary",
        "low and high look swapped: high is {value:.2f} times as bright as low",
        minimum=1.0,
    )
    for warning in _suspicions(params):
        yield warning
        yield replace(
            warning,
            name=f"{warning.name}-share",
            severity="critical",
            message=f"{{bad}} of {{judged}} pairs ({{value:.1%}}) are {warning.name}, more than "
            f"{params.max_flagged_share:.0%} (validate.max_flagged_share)",
            share=params.max_flagged_share,
        )


def _suspicions(params: ValidateParams) -> Iterator[DataCheck]:
    """Warnings that occur in every real data set; many of one kind block."""
    yield DataCheck(
        "nearly-black",
        "low_p99",
        "low is nearly black: 99 % of its pixels are at most {value:.1f} of 255",
        severity="warning",
        minimum=params.min_low_p99,
    )
    yield DataCheck(
        "saturated",
        "high_clipped",
        "high is saturated: {value:.0%} of its pixels are white",
        severity="warning",
        maximum=params.max_high_clipped,
    )
    yield DataCheck(
        "misaligned",
        "alignment",
        "low and high are misaligned or unrelated: correlation {value:.2f}",
        severity="warning",
        minimum=params.min_alignment,
    )
    yield DataCheck(
        "misaligned-shift",
        "shift",
        "low and high are misaligned by {shift_x:+.1f}, {shift_y:+.1f} pixels",
        severity="warning",
        maximum=params.max_shift,
    )


def _repetition() -> Iterator[DataCheck]:
    yield DataCheck(
        "duplicate",
        "duplicate_of",
        "the low has the same content as that of {value}",
        severity="warning",
        other="duplicate_of",
    )
    yield DataCheck(
        "leak-exact",
        "leak_exact",
        "the same image is in the training split: {value}",
        other="leak_exact",
    )
    yield DataCheck(
        "leak-near",
        "leak_similarity",
        "the same scene is in the training split: {leak_near} (similarity {value:.3f})",
        severity="warning",
        maximum=0.0,
        other="leak_near",
    )


def add_verdict_columns(manifest: pd.DataFrame, params: ValidateParams) -> pd.DataFrame:
    table = manifest.copy()
    for side in SIDES:
        table[f"{side}_min_side"] = table[[f"{side}_width", f"{side}_height"]].min(axis=1)
    table["size_mismatch"] = [_size_mismatch(row) for row in table.to_dict("records")]
    same = (table["low_pixels"] == table["high_pixels"]) & table["low_pixels"].notna()
    table["identical"] = table["low_pixels"].where(same)
    table["contrary"] = table["exposure_ratio"].where(~same)
    table["shift"] = _shift(table, params)
    for column in ("low_p99", "high_clipped"):  # shares are of pairs, not of files without one
        table[column] = table[column].where(table["kind"] == "pair")
    folded = table["pair"].str.casefold()
    table["case_clash"] = _first_other(table, folded)
    table["duplicate_of"] = _first_other(table, table["split"] + table["low_pixels"])
    return table.assign(**_leaks(table[table["kind"] == "pair"], table.index))


def _shift(table: pd.DataFrame, params: ValidateParams) -> pd.Series:
    """Pixels by which the sides are shifted; 0 for a comparable pair without shift.

    A shift counts only if the images match, and match better with it than without.
    """
    seen = (table["alignment"] >= params.min_alignment) & (
        table["alignment"] - table["in_place"] > GAIN
    )
    pixels = table[["shift_x", "shift_y"]].abs().max(axis=1)
    return pixels.where(seen, 0.0).where(table["alignment"].notna())


def _size_mismatch(row: dict[Any, Any]) -> str | None:
    sizes = [row[f"{side}_{axis}"] for side in SIDES for axis in ("width", "height")]
    if any(pd.isna(size) for size in sizes) or sizes[:2] == sizes[2:]:
        return None
    return f"{sizes[0]:.0f}x{sizes[1]:.0f} and {sizes[2]:.0f}x{sizes[3]:.0f}"


def _first_other(table: pd.DataFrame, key: pd.Series) -> pd.Series:
    """For each repeated key, the first pair that has it."""
    repeated = key.notna() & key.duplicated()
    return table.groupby(key)["pair"].transform("first").where(repeated)


def _leaks(pairs: pd.DataFrame, index: pd.Index) -> dict[str, pd.Series]:
    """For evaluation pairs: other pairs with the same image, or of the same scene.

    The similarity is known only if both references can be read.
    """
    others, judged = (pairs[(pairs["split"] == EVAL_SPLIT) == judge] for judge in (False, True))
    exact = pd.Series(None, index=judged.index, dtype="str")
    for side in SIDES:
        by_content = others.drop_duplicates(f"{side}_pixels").set_index(f"{side}_pixels")["pair"]
        exact = exact.fillna(judged[f"{side}_pixels"].map(by_content))
    near, alike = {}, {}
    others = others[others["high_thumb"].notna()]
    shared = judged[
        exact.isna() & judged["high_thumb"].notna() & judged["scene"].isin(others["scene"])
    ]
    for row, pair in shared.iterrows():
        twins = others[others["scene"] == pair["scene"]]
        likeness = [similarity(pair["high_thumb"], thumb) for thumb in twins["high_thumb"]]
        best = max(range(len(likeness)), key=likeness.__getitem__)
        near[row], alike[row] = twins["pair"].iloc[best], likeness[best]
    return {
        "leak_exact": exact.reindex(index),
        "leak_near": pd.Series(near, dtype="str").reindex(index),
        "leak_similarity": pd.Series(alike, dtype="float64").reindex(index),
    }
