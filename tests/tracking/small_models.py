"""Small models in the project's format."""

from __future__ import annotations

from pathlib import Path

import torch

from mirnet.models import build, save_model


def make_model(folder: Path, *, seed: int, name: str = "mirnet-xs", n_feat: int = 8) -> Path:
    """A network of random weights, the same for a seed."""
    torch.manual_seed(seed)
    return save_model(build(name, n_feat=n_feat), folder)
