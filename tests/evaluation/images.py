"""Small images with structure, made from a seed: edges, gradients, colours, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirnet.evaluation.scoring import ScoredPair


def bright_picture(seed: int, *, side: int = 48) -> NDArray[np.uint8]:
    """An image of mean about 110 with no channel near 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (rng.uniform(1, 3) * x + rng.uniform(1, 3) * y)) for _ in range(3)]
    picture = 110 + 45 * np.stack(waves, axis=-1)
    top, left = rng.integers(0, side // 2, size=2)
    picture[top : top + side // 3, left : left + side // 3] += rng.uniform(-40, 40, size=3)
    return np.clip(picture, 5, 215).astype(np.uint8)


def dark_pairs(number: int, *, side: int = 48) -> list[ScoredPair]:
    """(id, low, high) with one bright pixel in each low, which defeats autocontrast."""
    pairs = []
    for seed in range(number):
        high = bright_picture(seed, side=side)
        noise = np.random.default_rng(seed).normal(0, 1, size=high.shape)
        low = np.clip(high * 0.08 + noise, 0, 255).astype(np.uint8)
        low[0, 0] = 255
        pairs.append((f"eval15/{seed}.png", low, high))
    return pairs
