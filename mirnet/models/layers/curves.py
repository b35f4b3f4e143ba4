"""Brightening by curves, of Zero-DCE (Guo et al., CVPR 2020) and its successor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

ITERATIONS = 8


def estimated_curves(run: Callable[[int, Tensor], Tensor], x: Tensor) -> Tensor:
    """Maps of the curves in [-1, 1] by the seven convolutions that ``run`` takes the number of."""
    first = run(1, x).relu()
    second = run(2, first).relu()
    third = run(3, second).relu()
    fourth = run(4, third).relu()
    fifth = run(5, torch.cat([third, fourth], dim=1)).relu()
    sixth = run(6, torch.cat([second, fifth], dim=1)).relu()
    return run(7, torch.cat([first, sixth], dim=1)).tanh()


def brightened(image: Tensor, maps: Iterable[Tensor]) -> Tensor:
    """Apply one curve after the other: (N, 3, H, W) in [0, 1], float32, stays in [0, 1].

    A negative map brightens; the paper has the sign the other way round.
    """
    for curve in maps:
        image = image + curve * (image.square() - image)
    return image
