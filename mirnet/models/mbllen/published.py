"""Checkpoints of MBLLEN with the names and layout of Keras, or with ours.

The authors publish HDF5 files; this reads a state dict of their tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, count_modules, dimension, from_tensorflow

_KERAS = re.compile(r"(conv2d|conv2d_transpose)_(\d{1,3})/(kernel|bias):0")
_PER_BLOCK, _TRANSPOSED = 5, 3  # layers, numbered from 1 in order of creation


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    matches = {name: _KERAS.fullmatch(name) for name in state}
    plain = [int(match[2]) for match in matches.values() if match and match[1] == "conv2d"]
    last = max(plain, default=0)
    found = {}
    for name, value in state.items():
        match = matches[name]
        suffix = "weight" if match and match[3] == "kernel" else "bias"
        ours = f"{_layer(match, last)}.{suffix}" if match else name
        found[ours] = (from_tensorflow(value) if match else value).float()
    return found


def _layer(match: re.Match[str], last: int) -> str:
    number = int(match[2]) - 1
    if match[1] == "conv2d_transpose":
        return f"enhancements.{number // _TRANSPOSED}.outwards.{number % _TRANSPOSED}"
    block, place = divmod(number, _PER_BLOCK)
    if number == last - 1:
        return "fusion"
    if place == 0:
        return f"features.{block}"
    if place == 1:
        return f"enhancements.{block}.first"
    return f"enhancements.{block}.inwards.{place - 2}"


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    renamed = _renamed(state)
    first = renamed.get("features.0.weight")
    if first is None or "fusion.weight" not in renamed:
        return None
    return {"width": dimension(first), "blocks": count_modules(renamed, "features")}


def _weights(state: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    return _renamed(state)


FORMAT = PublishedFormat(_sizes, _weights)
