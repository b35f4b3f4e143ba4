"""Tensors of LLNet named ``W0``, ``b0``, ..., ``logW``, ``logb``, or as ours.

The authors publish pickled lists, which are not read: unpickling them would run their code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.llnet.network import SIDE
from mirnet.models.published import PublishedFormat, count_modules, dimension


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        match = re.fullmatch(r"(W|b)(\d)|log(W|b)", name)
        if not match:
            found[name] = value.float()
            continue
        layer = (
            "output" if match[3] else "first" if match[2] == "0" else f"hidden.{int(match[2]) - 1}"
        )
        if "b" in name:
            found[f"{layer}.bias"] = value.float()
        else:
            found[f"{layer}.weight"] = _kernel(value.float(), first=layer == "first")
    return found


def _kernel(matrix: Tensor, *, first: bool) -> Tensor:
    """(in, out) to the kernel of a convolution; a matrix of another shape stays."""
    if matrix.dim() != 2:
        return matrix
    turned = matrix.t().contiguous()
    if first and turned.shape[1] == 3 * SIDE**2:
        return turned.reshape(-1, 3, SIDE, SIDE)
    return turned[:, :, None, None]


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    renamed = _renamed(state)
    if "first.weight" not in renamed or "output.weight" not in renamed:
        return None
    layers = ["first", *(f"hidden.{n}" for n in range(count_modules(renamed, "hidden")))]
    missing = [layer for layer in layers if f"{layer}.weight" not in renamed]
    return None if missing else {"hidden": [dimension(renamed[f"{n}.weight"]) for n in layers]}


def _weights(state: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    return _renamed(state)


FORMAT = PublishedFormat(_sizes, _weights)
