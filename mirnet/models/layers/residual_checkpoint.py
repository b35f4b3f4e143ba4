"""Published checkpoints of a :class:`~mirnet.models.layers.residual.ResidualNetwork`.

Keys are ``conv_in``, ``body.GROUP.body.BLOCK.MODULE``, ``body.GROUP.body.NUM_BLOCKS`` (the
convolution that ends the group) and ``conv_out``, each with ``.weight``. What the files hold twice
(attention units of both columns, the PReLU of all units) must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mirnet.errors import WeightsError

SHARED_ACTIVATION = "groups.0.blocks.0.attention.0.activation.weight"


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Channels, groups and blocks per group; None: the keys are not of this layout."""
    places = [m for key in state if (m := re.match(r"body\.(\d{1,3})\.body\.(\d{1,3})\.", key))]
    outer, inner = ([int(place[n]) for place in places] for n in (1, 2))
    conv_in = state.get("conv_in.weight")
    if conv_in is None or not inner or conv_in.dim() != 4 or max(inner) < 1:
        return None
    return {"n_feat": conv_in.shape[0], "num_rrg": max(outer) + 1, "num_msrb": max(inner)}


def renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], *, num_rrg: int, num_msrb: int
) -> dict[str, Tensor]:
    """The tensors under our names, float32.

    Args:
        names: modules of a block, their name -> ours.

    Raises:
        WeightsError: keys missing or left over, a blur kernel that is another, or copies of shared
            weights that differ; names the keys.
    """
    _check_keys(state, names, num_rrg=num_rrg, num_msrb=num_msrb)
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".filt"):  # the fixed blur kernel
            continue
        name = _our_name(key.removesuffix(".weight"), names, num_msrb=num_msrb) + ".weight"
        if re.search(r"attention\.\d\.activation", name):
            name = SHARED_ACTIVATION
        if name in weights and not torch.equal(weights[name], value):
            raise WeightsError(f"{key} differs from the copy that it shares weights with")
        weights[name] = value.float()
    return weights


def _our_name(module: str, names: Mapping[str, str], *, num_msrb: int) -> str:
    if not (match := re.fullmatch(r"body\.(\d+)\.body\.(\d+)(?:\.(.+))?", module)):
        return module
    group, block, rest = match[1], match[2], match[3]
    if rest is None and int(block) == num_msrb:
        return f"groups.{group}.conv"
    return f"groups.{group}.blocks.{block}.{names.get(rest, rest)}"


def _check_keys(
    state: Mapping[str, Tensor], names: Mapping[str, str], *, num_rrg: int, num_msrb: int
) -> None:
    """All keys of a published file, by its own names, and no others; the fixed kernel as it is."""
    modules = {"conv_in", "conv_out"}
    for group in range(num_rrg):
        modules.add(f"body.{group}.body.{num_msrb}")
        for block in range(num_msrb):
            modules |= {f"body.{group}.body.{block}.{name}" for name in names}
    wanted = {f"{module}.weight" for module in modules}
    kernels = {key for key in state if key.endswith(".filt")}
    problems = [
        f"{what} {len(keys)}: {', '.join(sorted(keys))}"
        for what, keys in (
            ("missing", wanted - state.keys()),
            ("unexpected", state.keys() - wanted - kernels),
        )
        if keys
    ]
    if problems:
        raise WeightsError(f"{'; '.join(problems)}")
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    for key in kernels:
        if not torch.allclose(state[key].float(), (line[:, None] * line).expand_as(state[key])):
            raise WeightsError(f"{key} is not the kernel [1 2 1] x [1 2 1] / 16")
