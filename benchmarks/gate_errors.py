"""How often the gate errs, by the number of evaluation images.

    python -m benchmarks.gate_errors FIRST/scores.parquet SECOND/scores.parquet

Two seeds of one recipe, each scored by `mirnet evaluate` on the same images
(`reports/evaluation/scores.parquet`). Their differences per image, plain and aligned and with their
mean taken out, are what chance does. Evaluations of 15, 50 and 200 images are drawn from them with
replacement; a true gain is added, and the gate decides. "plain" is the gate of before: plain PSNR
alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mirnet.evaluation.gate import Decision, decide, gather_evidence
from mirnet.evaluation.slices import SLICES, thirds
from mirnet.params import EvaluateParams, PromoteParams

SIZES = (15, 50, 200)
_METHOD = "mirnet"
GATES = {
    "plain": PromoteParams(criterion="plain", max_slice_loss_db=None),
    "aligned, guarded": PromoteParams(),
}


@dataclass(frozen=True)
class Case:
    """A candidate with a true difference from the champion, in dB.

    Attributes:
        right: whether it should be promoted.
        dark: added on the darkest third.
    """

    name: str
    aligned: float
    plain: float
    right: bool
    dark: float = 0.0


CASES = (
    Case("same recipe, other seed", 0.0, 0.0, right=False),
    Case("better by 0.3 dB", 0.3, 0.3, right=True),
    Case("better by 0.5 dB", 0.5, 0.5, right=True),
    Case("better by 1 dB", 1.0, 1.0, right=True),
    Case("aligned +0.5 dB, plain -1.5 dB", 0.5, -1.5, right=False),
    Case("+0.5 dB, on the darkest third -3 dB", 2.25, 2.25, right=False, dark=-5.25),
    Case("worse by 0.5 dB", -0.5, -0.5, right=False),
)


def both_seeds(first: Path, second: Path) -> pd.DataFrame:
    """One row per image: what is known of it, the champion's scores, and what chance adds."""
    one, other = (
        table[table["method"] == _METHOD].set_index("pair_id").sort_index()
        for table in map(pd.read_parquet, (first, second))
    )
    if not one.index.equals(other.index):
        raise SystemExit("not scored on the same images")
    for metric in ("psnr", "gt_mean_psnr"):
        difference = other[metric] - one[metric]
        one[f"chance_{metric}"] = difference - difference.mean()
    return one.reset_index()


def decided(
    images: pd.DataFrame, case: Case, params: PromoteParams, *, seed: int, samples: int
) -> Decision:
    """The decision on one drawn evaluation; either seed may be the champion."""
    sign = 1 if seed % 2 else -1
    gain: dict[str, NDArray[np.float64]] = {}
    darkest = thirds(images["low_luma"], SLICES["low_luma"])["darkest"].to_numpy()
    for metric, mean in (("psnr", case.plain), ("gt_mean_psnr", case.aligned)):
        chance = sign * images[f"chance_{metric}"].to_numpy()
        gain[metric] = chance + mean + case.dark * darkest
    champion = images.assign(method="champion")
    candidate = images.assign(method=_METHOD, **{m: images[m] + gain[m] for m in gain})
    baseline = images.assign(method="autocontrast", psnr=images["psnr"] - 8)
    evidence = gather_evidence(
        pd.concat([candidate, champion, baseline]),
        candidate=_METHOD,
        champion="champion",
        params=params,
        evaluate=EvaluateParams(bootstrap_samples=samples, seed=seed),
    )
    return decide(evidence, params)


def share_promoted(
    images: pd.DataFrame, case: Case, params: PromoteParams, *, size: int, draws: int, samples: int
) -> float:
    """Share of drawn evaluations after which the candidate is promoted."""
    promoted = 0
    for seed in range(draws):
        rng = np.random.default_rng([seed, size])
        drawn = images.iloc[rng.integers(0, len(images), size)].reset_index(drop=True)
        drawn["pair_id"] = [str(i) for i in range(size)]
        promoted += decided(drawn, case, params, seed=seed, samples=samples).promote
    return promoted / draws


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--draws", type=int, default=200, help="evaluations per cell")
    parser.add_argument("--samples", type=int, default=400, help="resamples per interval")
    options = parser.parse_args()
    images = both_seeds(options.first, options.second)
    spreads = [images[f"chance_{m}"].std() for m in ("psnr", "gt_mean_psnr")]
    print(f"{len(images)} images; spread of the paired difference of two seeds:")
    print(f"plain {spreads[0]:.2f} dB, aligned {spreads[1]:.2f} dB\n")
    print("| candidate | should be | gate | " + " | ".join(f"{n} images" for n in SIZES) + " |")
    print("| --- " * (3 + len(SIZES)) + "|")
    for case in CASES:
        for name, params in GATES.items():
            shares = [
                share_promoted(
                    images, case, params, size=n, draws=options.draws, samples=options.samples
                )
                for n in SIZES
            ]
            wanted = "promoted" if case.right else "refused"
            cells = " | ".join(f"{share:.0%}" for share in shares)
            print(f"| {case.name} | {wanted} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
