"""Every baseline on every pair of a folder in the LoL layout, with intervals: a Markdown table.

python -m benchmarks.baselines ../shared/lol
"""

from __future__ import annotations

import sys
from pathlib import Path

from mirnet.data.layout import find_pairs
from mirnet.evaluation.baselines import BASELINES
from mirnet.evaluation.scoring import score_pairs
from mirnet.images import read_rgb
from mirnet.params import EvaluateParams

_EXTRA = {"ms_ssim": "MS-SSIM", "ciede2000": "CIEDE2000", "gt_mean_psnr": "GT-mean PSNR"}


def main(root: Path) -> None:
    """Print the table."""
    pairs = [
        (f"{p.split}/{p.name}", read_rgb(p.low_path), read_rgb(p.high_path))
        for p in find_pairs(root)
        if p.low_path and p.high_path
    ]
    _, summary = score_pairs(pairs, BASELINES, EvaluateParams())
    print(f"{len(pairs)} pairs of {root}\n")
    print(f"| method | PSNR dB | 95 % | SSIM | 95 % | {' | '.join(_EXTRA.values())} |")
    print("| --- " * (5 + len(_EXTRA)) + "|")
    for score in summary.values():
        cells = [
            score.method,
            f"{score.psnr:.2f}",
            "{:.2f} to {:.2f}".format(*score.psnr_interval),
            f"{score.ssim:.4f}",
            "{:.4f} to {:.4f}".format(*score.ssim_interval),
            *(f"{score.extra[key]:.3f}" for key in _EXTRA),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
