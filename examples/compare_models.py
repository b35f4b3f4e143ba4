"""Compare two models on pairs: a table of means, and the paired difference with its interval.

    python examples/compare_models.py data/eval15 model models:/mirnet@champion

PAIRS is a folder with low/NAME and high/NAME. `mirnet evaluate` does the same for one model beside
the baselines, with a page of images and a run in MLflow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mirnet import open_enhancer
from mirnet.errors import MirnetError
from mirnet.evaluation.scoring import score_pairs
from mirnet.evaluation.statistics import paired_gain
from mirnet.images import read_rgb
from mirnet.params import EvaluateParams


def main() -> None:
    """Print one row per model, then how much better the first is than the second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("first")
    parser.add_argument("second")
    options = parser.parse_args()

    pairs = [
        (path.name, read_rgb(path), read_rgb(options.pairs / "high" / path.name))
        for path in sorted((options.pairs / "low").iterdir())
    ]
    first, second = options.first, options.second
    if first == second:  # scores are kept by name
        second += " again"
    try:
        methods = {first: open_enhancer(options.first), second: open_enhancer(options.second)}
    except MirnetError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    params = EvaluateParams()  # 95 % intervals by bootstrap over images
    scores, summary = score_pairs(pairs, methods, params)

    print(f"{'model':32} {'PSNR dB':>8} {'95 %':>16} {'SSIM':>7} {'CIEDE2000':>10}")
    for name, mean in summary.items():
        low, high = mean.psnr_interval
        interval = f"{low:.2f} to {high:.2f}"
        difference = mean.extra["ciede2000"]
        print(f"{name:32} {mean.psnr:8.2f} {interval:>16} {mean.ssim:7.4f} {difference:10.2f}")
    gain = paired_gain(
        scores,
        first,
        second,
        num_samples=params.bootstrap_samples,
        seed=params.seed,
    )
    print(f"{first} is better by {gain}, on {gain.num_images} images")


if __name__ == "__main__":
    main()
