"""One table of a data set: a row a pair, and a row a file that is no pair."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from mirnet.data.layout import PAIRS_TABLE, SIDES, Layout, scan
from mirnet.data.measures import FileFacts, measure_file
from mirnet.data.versioning import Snapshot, take_snapshot
from mirnet.errors import DataError


def build_manifest(
    root: Path,
    *,
    cache_dir: Path | None = None,
    num_processes: int | None = None,
    snapshot: Snapshot | None = None,
) -> pd.DataFrame:
    """Measure every file below ``root``.

    Columns: ``pair`` (split/name), ``split``, ``name``, ``kind`` (pair, missing-low, missing-high,
    stray), ``source``, ``scene``, and the facts of either side as ``low_*`` and ``high_*``.

    Raises:
        DataError: no such folder, no split in it, or a broken pairs table.
    """
    layout = scan(root)
    snapshot = snapshot or take_snapshot(root)
    rows = _rows(layout)
    paths = [root / row[side] for row in rows for side in SIDES if row.get(side)]
    with ThreadPoolExecutor(num_processes or os.cpu_count() or 1) as pool:
        facts = dict(zip(paths, pool.map(measure_file, paths), strict=True))
    for row in rows:
        for side in SIDES:
            relative = row.pop(side)
            row |= _columns(side, facts.get(root / relative) if relative else None)
            row[f"{side}_md5"] = snapshot.md5.get(relative) if relative else None
    table = pd.DataFrame(rows)
    table["source"] = table["pair"].map(_read_sources(root))
    table["scene"] = _scenes(table)
    return table


def _rows(layout: Layout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for pair in layout.pairs:
        low, high = (f"{pair.split}/{side}/{pair.name}" for side in SIDES)
        rows.append(_row(pair.split, pair.name, "pair", low=low, high=high))
    for path in layout.missing:
        split, side, name = path.relative_to(layout.root).parts
        other = "low" if side == "high" else "high"
        rows.append(_row(split, name, f"missing-{side}", **{other: f"{split}/{other}/{name}"}))
    for path in layout.strays:
        relative = path.relative_to(layout.root)
        rows.append(_row(None, path.name, "stray") | {"pair": relative.as_posix()})
    return rows


def _row(
    split: str | None, name: str, kind: str, low: str | None = None, high: str | None = None
) -> dict[str, Any]:
    pair = f"{split}/{name}"
    return {"pair": pair, "split": split, "name": name, "kind": kind, "low": low, "high": high}


def _columns(side: str, facts: FileFacts | None) -> dict[str, Any]:
    return {f"{side}_{key}": value for key, value in vars(facts or FileFacts()).items()}


def _read_sources(root: Path) -> dict[str, str]:
    """Source photograph by pair, where the data set says it."""
    path = root / PAIRS_TABLE
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str)
        return dict(zip(table["pair"], table["source"], strict=True))
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a table with the columns pair and source") from error


def _scenes(table: pd.DataFrame) -> pd.Series:
    """Pairs that show the same: by declared source, else by equal reference."""
    return table["source"].fillna(table["high_md5"]).fillna(table["pair"])
