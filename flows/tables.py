"""Table artifacts of Prefect: one row per figure, since its pages cut wide tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mirnet.redaction import shown

Row = dict[str, Any]


def vertical(columns: Mapping[str, Mapping[str, object]]) -> list[Row]:
    """One row per figure, one column per mapping; figures without a value are left out."""
    figures = dict.fromkeys(name for values in columns.values() for name in values)
    rows = [
        {"figure": shown(name)} | {head: _cell(v.get(name)) for head, v in columns.items()}
        for name in figures
    ]
    return [row for row in rows if any(row[head] != "" for head in columns)]


def table_row(row: BaseModel, *, without: frozenset[str] = frozenset()) -> Row:
    """The fields of a model as one row, for tables of few columns."""
    return {name: _cell(value) for name, value in row.model_dump(exclude=set(without)).items()}


def _cell(value: object) -> object:
    """Text without secrets and control characters; four significant digits."""
    if value is None:
        return ""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value
