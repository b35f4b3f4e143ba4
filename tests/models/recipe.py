"""Random weights by rule, for reference vectors of networks that are too large for a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mirnet.models.network import COUNTER


def recipe_weights(checksums: Path, network: str) -> dict[str, Tensor]:
    """A state dict whose tensor number i is drawn with the seed 1000 + i.

    Args:
        checksums: JSON of shape, sum and sum of absolute values by network and tensor.
    """
    listed = json.loads(checksums.read_text())[network]
    weights = {}
    for number, name in enumerate(_counted(listed)):
        if name not in listed:
            continue
        shape, total, _ = listed[name]
        value = _drawn(np.random.RandomState(1000 + number), name, shape)
        assert abs(float(value.astype(np.float64).sum()) - total) < 1e-4, name
        weights[name] = torch.from_numpy(value)
    return weights


def _counted(names: dict[str, object]) -> Iterator[str]:
    """The names, and those of counters of batches, which have numbers but no values."""
    for name in names:
        yield name
        if name.endswith("running_var"):
            yield name.replace("running_var", COUNTER)


def _drawn(generator: np.random.RandomState, name: str, shape: list[int]) -> np.ndarray:
    if len(shape) > 1:
        outputs = shape[0] if name.endswith(".weight") else shape[-1]
        value = generator.standard_normal(shape) * np.sqrt(2 * outputs / np.prod(shape))
    elif name.endswith("running_var"):
        value = 0.5 + generator.uniform(0, 1, shape)
    elif name.endswith(".weight"):
        value = 1 + 0.2 * generator.standard_normal(shape)
    else:
        value = 0.1 * generator.standard_normal(shape)
    return value.astype(np.float32)
