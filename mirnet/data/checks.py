"""What a data set must be, as a list. Critical findings block it, warnings are reported.

Each check reads one column of the manifest; a row where the column is empty is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from mirnet.config import ValidateParams

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Check:
    """Allowed values or bounds of one column; neither: the column must be empty."""

    name: str
    severity: Severity
    column: str
    message: str
    """With the columns of the row as fields, and ``value``."""
    allowed: frozenset[str] | None = None
    minimum: float | None = None
    maximum: float | None = None


KINDS = frozenset({"pair", "missing-low", "missing-high", "empty-split", "stray"})


def checks(params: ValidateParams) -> list[Check]:
    """All checks with their bounds."""
    return [
        *_completeness(),
        *(check for side in ("low", "high") for check in _file_checks(side, params)),
        Check("size-mismatch", "critical", "size_mismatch", "low and high differ in size: {value}"),
        Check("identical", "critical", "identical", "low and high are the same file"),
        Check(
            "swapped",
            "critical",
            "exposure_ratio",
            "low and high look swapped: high is {value:.2f} times as bright as low",
            minimum=1.0,
        ),
    ]


def _completeness() -> Iterator[Check]:
    for kind, message in (
        ("missing-low", "low/{name} is missing"),
        ("missing-high", "high/{name} is missing"),
        ("empty-split", "the split has no pairs"),
    ):
        yield Check(kind, "critical", "kind", message, allowed=KINDS - {kind})
    yield Check(
        "stray", "warning", "kind", "the file does not belong here", allowed=KINDS - {"stray"}
    )


def _file_checks(side: str, params: ValidateParams) -> Iterator[Check]:
    yield Check(f"{side}-unreadable", "critical", f"{side}_error", f"{side}/{{name}}: {{value}}")
    yield Check(
        f"{side}-mode",
        "critical",
        f"{side}_mode",
        f"{side}/{{name}} is {{value}}, not 8-bit RGB: convert it",
        allowed=frozenset({"RGB"}),
    )
    yield Check(
        f"{side}-too-small",
        "critical",
        f"{side}_min_side",
        f"{side}/{{name}} has {{value:.0f}} pixels on its shorter side; "
        f"at least {params.min_side} (validate.min_side)",
        minimum=params.min_side,
    )


def add_verdict_columns(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest with the columns that only the checks need."""
    table = manifest.copy()
    for side in ("low", "high"):
        table[f"{side}_min_side"] = table[[f"{side}_width", f"{side}_height"]].min(axis=1)
    table["size_mismatch"] = [_size_mismatch(row) for _, row in table.iterrows()]
    same = (table["low_md5"] == table["high_md5"]) & table["low_md5"].notna()
    table["identical"] = table["low_md5"].where(same)
    # one grey level in the denominator: a black low is no swap
    table["exposure_ratio"] = (table["high_mean"] + 1) / (table["low_mean"] + 1)
    return table


def _size_mismatch(row: pd.Series) -> str | None:
    sizes = [row[f"{side}_{axis}"] for side in ("low", "high") for axis in ("width", "height")]
    if any(pd.isna(size) for size in sizes) or sizes[:2] == sizes[2:]:
        return None
    return f"{sizes[0]:.0f}x{sizes[1]:.0f} and {sizes[2]:.0f}x{sizes[3]:.0f}"
