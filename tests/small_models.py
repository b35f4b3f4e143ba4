"""The smallest network, for tests of what is around a network."""

from __future__ import annotations

from pathlib import Path

import torch

from mirnet.models import Network, build, save_model

SMALLEST = ("model.n_feat=8", "model.num_streams=1")
"""Overrides. One stream in place of three: a sixth of the operations to trace, compile and run."""


def smallest(*, seed: int = 0) -> Network:
    """MIRNet of random weights, the same for a seed."""
    torch.manual_seed(seed)
    return build("mirnet-xs", n_feat=8, num_streams=1)


def make_model(folder: Path, *, seed: int) -> Path:
    """:func:`smallest` in the project's format."""
    return save_model(smallest(seed=seed), folder)
