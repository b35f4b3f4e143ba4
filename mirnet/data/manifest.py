"""The table of a data set: one row per pair, and one row per file without a pair."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mirnet.atomic import replacing, write_atomically
from mirnet.data.alignment import PairFacts, align
from mirnet.data.layout import PAIRS_TABLE, SIDES, Layout, scan
from mirnet.data.measures import FACTS, FileFacts, measure_file
from mirnet.data.scenes import clusters, find_twins
from mirnet.data.versioning import Snapshot, take_snapshot
from mirnet.errors import DataError

log = logging.getLogger(__name__)

CACHE = "measured-6.parquet"
"""Increase with every change of a measure."""
_TWINS = "twins-2-"
"""Likewise of the detection of scenes."""
_TEXT = ("_md5", "_format", "_mode", "_pixels", "_phash", "_error")


def build_manifest(
    root: Path,
    *,
    cache_dir: Path | None = None,
    num_processes: int | None = None,
    snapshot: Snapshot | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Measure every pair below ``root``; measurements are cached by content.

    Columns: ``pair`` (split/name), ``split``, ``name``, ``kind`` (pair, missing-low, missing-high,
    empty-split, stray), ``low`` and ``high`` (paths below the root), ``{low,high}_md5``, ``_bytes``
    and all of :class:`FileFacts`; ``exposure_ratio``, ``alignment``, ``shift_x``, ``shift_y``;
    ``source`` (from the pairs table) and ``scene`` (equal for pairs of the same scene).

    Raises:
        DataError: no such folder, no split in it, or a broken pairs table.
    """
    layout = scan(root)
    snapshot = snapshot or take_snapshot(root)
    table = pd.DataFrame(_rows(layout))
    files = {file.path: file for file in snapshot.files}
    for side in SIDES:
        tracked = [files.get(path) for path in table[side]]
        table[f"{side}_md5"] = [file.md5 if file else None for file in tracked]
        table[f"{side}_bytes"] = [file.size if file else None for file in tracked]
    measured = _measure_all(root, table, cache_dir, num_processes, progress)
    table = table.merge(measured, how="left", on=["low_md5", "high_md5"])
    # plus one grey level on both sides, so that a black low has a ratio too
    table["exposure_ratio"] = (table["high_mean"] + 1) / (table["low_mean"] + 1)
    table["source"] = table["pair"].map(_read_sources(root)).astype("str")
    return _with_scenes(table, cache_dir)


def _rows(layout: Layout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for pair in layout.pairs:
        low, high = (f"{pair.split}/{side}/{pair.name}" for side in SIDES)
        rows.append(_row(pair.split, pair.name, "pair", low=low, high=high))
    for path in layout.missing:
        split, side, name = path.relative_to(layout.root).parts
        other = "low" if side == "high" else "high"
        rows.append(_row(split, name, f"missing-{side}", **{other: f"{split}/{other}/{name}"}))
    for split in layout.empty_splits:
        rows.append(_row(split, "", "empty-split") | {"pair": split})
    for path in layout.strays:
        relative = path.relative_to(layout.root)
        rows.append(_row(None, path.name, "stray") | {"pair": relative.as_posix()})
    return rows


def _row(
    split: str | None, name: str, kind: str, low: str | None = None, high: str | None = None
) -> dict[str, Any]:
    pair = f"{split}/{name}"
    return {"pair": pair, "split": split, "name": name, "kind": kind, "low": low, "high": high}


def _measure_all(
    root: Path,
    table: pd.DataFrame,
    cache_dir: Path | None,
    num_processes: int | None,
    progress: Callable[[int, int], None] | None,
) -> pd.DataFrame:
    """Facts by the hashes of both sides, one row per pair."""
    wanted = table[~table["kind"].isin(["stray", "empty-split"])].drop_duplicates(
        ["low_md5", "high_md5"]
    )
    measured = _read_cache(cache_dir)
    fresh = wanted
    if measured is not None:
        both = wanted.merge(measured[["low_md5", "high_md5"]], how="left", indicator=True)
        fresh = wanted[(both["_merge"] == "left_only").to_numpy()]
    log.info("%d of %d pairs are to be measured", len(fresh), len(wanted))
    # threads: decoders, numpy and scipy release the interpreter lock for nearly all of the work
    with ThreadPoolExecutor(num_processes or os.cpu_count() or 1) as pool:
        measure = partial(_measure_row, root=root)
        rows = []
        for row in pool.map(measure, fresh[["low", "high", "low_md5", "high_md5"]].itertuples()):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(fresh))
    new = pd.DataFrame(rows, columns=list(_types())).astype(_types())
    if measured is None:
        measured = new
    elif len(new):
        measured = pd.concat([measured, new], ignore_index=True)
    if len(new) and cache_dir is not None:
        with replacing(cache_dir / CACHE) as file:
            measured.to_parquet(file, index=False)
    return measured


def _types() -> dict[str, str]:
    """Fixed column types of the measured table, also for empty ones."""
    sides = [f"{side}_{name}" for side in SIDES for name in FACTS]
    names = ["low_md5", "high_md5", *sides, *asdict(PairFacts())]
    return {name: _type(name) for name in names}


def _type(name: str) -> str:
    if name.endswith(_TEXT):
        return "str"
    return "object" if name.endswith("_thumb") else "float64"


def _measure_row(row: Any, *, root: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"low_md5": row.low_md5, "high_md5": row.high_md5}
    greys = []
    for side in SIDES:
        relative = getattr(row, side)
        measured, grey = FileFacts(), None
        if isinstance(relative, str):
            measured, grey = measure_file(root / relative)
        facts |= {f"{side}_{name}": value for name, value in vars(measured).items()}
        greys.append(grey)
    low, high = greys
    fit = align(low, high) if low is not None and high is not None else PairFacts()
    return facts | asdict(fit)


def _read_cache(cache_dir: Path | None) -> pd.DataFrame | None:
    if cache_dir is None or not (cache_dir / CACHE).is_file():
        return None
    try:
        return pd.read_parquet(cache_dir / CACHE)
    except (OSError, ValueError) as error:
        log.warning("%s: not readable, measuring anew: %s", cache_dir / CACHE, error)
        return None


def _read_sources(root: Path) -> dict[str, str]:
    """Source photograph by pair, if the data set has a pairs table."""
    path = root / PAIRS_TABLE
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str)
        return dict(zip(table["pair"], table["source"], strict=True))
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a table with the columns pair and source") from error


def _with_scenes(table: pd.DataFrame, cache_dir: Path | None) -> pd.DataFrame:
    """Group pairs of one scene: equal source, equal reference, near duplicates."""
    unique = table[table["high_thumb"].notna()].drop_duplicates("high_pixels")
    links = [
        (int(unique.index[first]), int(unique.index[second]))
        for first, second in _twins(unique, cache_dir)
    ]
    for column in ("source", "high_pixels"):
        for rows in table[table[column].notna()].groupby(column).groups.values():
            links += [(int(rows[0]), int(row)) for row in rows[1:]]
    first = table["pair"].groupby(clusters(len(table), links)).transform("first")
    return table.assign(scene=first.where(table["kind"] == "pair"))


def _twins(unique: pd.DataFrame, cache_dir: Path | None) -> list[tuple[int, int]]:
    """Pairs of rows of one scene; cached by the references in their order."""
    seen = hashlib.blake2b("".join(unique["high_pixels"]).encode(), digest_size=12).hexdigest()
    path = cache_dir / f"{_TWINS}{seen}.json" if cache_dir else None
    if path and path.is_file():
        try:
            return [(first, second) for first, second in json.loads(path.read_text())]
        except ValueError as error:
            log.warning("%s: not readable, looking for twins anew: %s", path, error)
    couples = find_twins(list(unique["high_thumb"]))
    if path:
        write_atomically(path, json.dumps(couples))
    return couples
