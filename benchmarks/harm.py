"""Where the limits of ``enhance`` on spoilt images come from: figures of every kind of harm.

python -m benchmarks.harm MODEL --pairs ../shared/lol --photographs ../shared/night

For pairs in the LoL layout: what becomes of the dark images when the reference stands in for the
output (the best that a model could do), and with the model. For photographs without a reference:
a row per image with what the batch would do. Limits belong above the first two and below what a
person would call spoilt among the third.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from mirnet.batch.guard import harm_limits, is_bright
from mirnet.data.layout import find_pairs
from mirnet.images import decode
from mirnet.images.harm import Change, HarmLimits, compare, find_harm
from mirnet.images.stats import shadows
from mirnet.params import EnhanceParams
from mirnet.stages.models import open_enhancer

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
Case = tuple[str, np.ndarray, np.ndarray]


def figures(cases: Iterable[Case], params: EnhanceParams) -> pd.DataFrame:
    """A row per (name, input, output): shadows, each figure, what the batch would do."""
    limits, rows = harm_limits(params), {}
    for name, before, after in cases:
        started = time.process_time()
        change = compare(before, after)
        spent = time.process_time() - started
        dark = shadows(before)
        rows[name] = {"shadows": dark} | asdict(change)
        rows[name] |= {"fate": fate(dark, change, params, limits), "ms": 1000 * spent}
    return pd.DataFrame.from_dict(rows, orient="index")


def fate(dark: float, change: Change, params: EnhanceParams, limits: HarmLimits) -> str:
    """In a word."""
    if is_bright(dark, params):
        return "bright"
    harm = find_harm(change, limits)
    return harm.reason if harm else "enhanced"


def read(path: Path) -> np.ndarray:
    """Upright RGB."""
    return decode(path.read_bytes(), name=str(path)).pixels


def show(title: str, table: pd.DataFrame, *, every: bool = False) -> None:
    """Quantiles of each figure and a count of fates; the rows themselves if asked for."""
    print(f"\n## {title}: {len(table)} pictures, {table['ms'].median():.0f} ms each to judge\n")
    numbers = table.drop(columns=["fate", "ms"])
    print(numbers.quantile(_QUANTILES).rename(lambda q: f"{q:.0%}").round(3).to_string())
    print(", ".join(f"{kind} {number}" for kind, number in Counter(table["fate"]).items()))
    if every:
        print(table.drop(columns="ms").round(3).to_string())
    else:
        for name, row in table[table["fate"] != "enhanced"].iterrows():
            print(f"  {name}: {row['fate']}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or models:/NAME@ALIAS")
    parser.add_argument("--pairs", type=Path, help="folder in the LoL layout")
    parser.add_argument("--photographs", type=Path, help="folder of pictures without reference")
    parser.add_argument("--every", type=int, default=1, help="take every n-th pair [1]")
    options = parser.parse_args()
    params = EnhanceParams()
    enhance = open_enhancer(options.model, compile=False)
    if options.pairs:
        found = [p for p in find_pairs(options.pairs) if p.low_path and p.high_path]
        names = {p.name: (p.low_path, p.high_path) for p in found[:: options.every]}

        def references() -> Iterator[Case]:
            for name, (low, high) in names.items():
                yield name, read(Path(str(low))), read(Path(str(high)))

        show("references as outputs", figures(references(), params))
        enhanced = ((name, low, enhance(low)) for name, low, _ in references())
        show("pairs, by the model", figures(enhanced, params))
        normal = [shadows(high) for _, _, high in references()]
        limit = params.pass_luminance or 1.0
        print(f"bright by their shadows: {np.mean(np.array(normal) >= limit):.0%} of references")
    if options.photographs:
        paths = sorted(path for path in options.photographs.iterdir() if path.is_file())
        inputs = ((path.name, read(path)) for path in paths)
        cases = ((name, low, enhance(low)) for name, low in inputs)
        show("photographs, by the model", figures(cases, params), every=True)


if __name__ == "__main__":
    main()
