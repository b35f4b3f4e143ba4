"""Reads checkpoints in the published MIRNet and MIRNet-v2 formats.

Loading never unpickles code (``weights_only``). Keys are renamed to ours by tables; what the
published files hold twice (attention units of both columns, the PReLU of all units) must agree.
"""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirnet.errors import WeightsError
from mirnet.models.architecture import Architecture
from mirnet.models.files import fill
from mirnet.models.mirnet import MIRNet
from mirnet.models.mirnet_v2 import MIRNetV2

_DAU = {
    "body.0": "conv1",
    "body.1": "activation",
    "body.2": "conv2",
    "SA.spatial.conv": "spatial.conv",
    "CA.conv_du.0": "channel.squeeze",
    "CA.conv_du.2": "channel.expand",
    "conv1x1": "fuse",
}
_DOWN = {
    "top.0": "reduce",
    "top.1": "activation1",
    "top.2": "conv",
    "top.3": "activation2",
    "top.5": "expand",
    "bot.1": "skip",
}
_UP = {theirs: ours for theirs, ours in _DOWN.items() if theirs != "top.5"} | {"top.4": "expand"}
_SKFF = {"conv_du.0": "squeeze", "conv_du.1": "activation"} | {
    f"fcs.{i}": f"expand.{i}" for i in range(3)
}
_RCB = {
    "body.0": "conv1",
    "body.2": "conv2",
    "gcnet.conv_mask": "context.mask",
    "gcnet.channel_add_conv.0": "context.squeeze",
    "gcnet.channel_add_conv.2": "context.expand",
}
# in a block of v2: their module -> ours
_V2_BLOCK = {
    "down2.body.0.bot.1": "down_mid.conv",
    "down4.0.body.0.bot.1": "down_bot.0.conv",
    "down4.1.body.0.bot.1": "down_bot.1.conv",
    "up21_1.body.0.bot.0": "up_top.0.conv",
    "up21_2.body.0.bot.0": "up_top.1.conv",
    "up32_1.body.0.bot.0": "up_mid.0.conv",
    "up32_2.body.0.bot.0": "up_mid.1.conv",
    "conv_out": "conv",
    **{
        f"dau_{row}.{a}": f"context_{row}.{b}"
        for row in ("top", "mid", "bot")
        for a, b in _RCB.items()
    },
    # of two streams, with a LeakyReLU
    **{
        f"skff_{row}.{a}": f"fusion_{row}.{b}"
        for row in ("top", "mid")
        for a, b in _SKFF.items()
        if a not in ("conv_du.1", "fcs.2")
    },
}
SHARED_ACTIVATION = "groups.0.blocks.0.attention.0.activation.weight"
# what reading bytes that are no checkpoint can end in
_DAMAGE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError, OverflowError, struct.error),
)


def _v1_block(n_feat: int) -> dict[str, str]:
    """In a block of v1: their module -> ours. Resizers are named after channels and scale."""
    names = {"conv_out": "conv"}
    for row in range(3):
        for column in range(2):
            names |= {f"blocks.{row}.{column}.{a}": f"attention.{row}.{b}" for a, b in _DAU.items()}
        names |= {f"selective_kernel.{row}.{a}": f"fusion.{row}.{b}" for a, b in _SKFF.items()}
    for source in range(3):
        for target in range(3):
            steps = target - source
            kind, table = ("down", _DOWN) if steps > 0 else ("up", _UP)
            theirs = f"{kind}.{n_feat * 2**source}_{2 ** abs(steps)}"
            for k in range(abs(steps)):
                names |= {
                    f"{theirs}.body.{k}.{a}": f"exchange.{source}_{target}.{k}.{b}"
                    for a, b in table.items()
                }
    for row in (1, 2):
        for k in range(row):
            names |= {
                f"last_up.{row}.body.{k}.{a}": f"last.{row - 1}.{k}.{b}" for a, b in _UP.items()
            }
    return names


def read_checkpoint(path: Path) -> MIRNet | MIRNetV2:
    """Build the network that a published checkpoint holds, with its weights, in evaluation mode.

    The sizes (channels, groups, blocks) come from the file.

    Raises:
        WeightsError: not a checkpoint, not one of the two formats, or keys missing, left over or
            of a wrong shape; names the file and the keys.
    """
    state = _read_state(path)
    places = [m for key in state if (m := re.match(r"body\.(\d{1,3})\.body\.(\d{1,3})\.", key))]
    outer, inner = ([int(place[n]) for place in places] for n in (1, 2))
    conv_in = state.get("conv_in.weight")
    if conv_in is None or not inner or conv_in.dim() != 4 or max(inner) < 1:
        raise WeightsError(f"{path}: no MIRNet or MIRNet-v2 checkpoint (found {_sample(state)})")
    is_v2 = any(".dau_top." in key for key in state)
    try:
        architecture = Architecture(
            network="mirnet-v2" if is_v2 else "mirnet",
            n_feat=conv_in.shape[0],
            num_rrg=max(outer) + 1,
            num_msrb=max(inner),
        )
        model = architecture.build()
    except ValueError as error:
        raise WeightsError(f"{path}: sizes that no MIRNet has: {error}") from error
    names = _V2_BLOCK if is_v2 else _v1_block(architecture.n_feat)
    _check_keys(state, architecture, names, path=path)
    weights = _renamed(state, names, num_msrb=architecture.num_msrb, path=path)
    fill(model, weights, origin=str(path))
    return model.eval()


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not a checkpoint that is safe to read: {reason}") from error
    for key in ("state_dict", "params"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path}: holds no state_dict of tensors")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        name = str(key).removeprefix("module.")
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or not value.is_floating_point():
            raise WeightsError(f"{path}: {name} is no tensor of floating point numbers")
        if name in state:
            raise WeightsError(f"{path}: {name} is there twice, with and without 'module.'")
        state[name] = value
    return state


def _check_keys(
    state: dict[str, Tensor], architecture: Architecture, names: dict[str, str], *, path: Path
) -> None:
    """All keys of a published file, by its own names, and no others; the fixed kernel as it is."""
    modules = {"conv_in", "conv_out"}
    for group in range(architecture.num_rrg):
        modules.add(f"body.{group}.body.{architecture.num_msrb}")
        for block in range(architecture.num_msrb):
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
        raise WeightsError(f"{path}: {'; '.join(problems)}")
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    for key in kernels:
        if not torch.allclose(state[key].float(), (line[:, None] * line).expand_as(state[key])):
            raise WeightsError(f"{path}: {key} is not the kernel [1 2 1] x [1 2 1] / 16")


def _renamed(
    state: dict[str, Tensor], names: dict[str, str], *, num_msrb: int, path: Path
) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".filt"):  # the fixed blur kernel
            continue
        name = _our_name(key.removesuffix(".weight"), names, num_msrb=num_msrb) + ".weight"
        if re.search(r"attention\.\d\.activation", name):
            name = SHARED_ACTIVATION
        if name in weights and not torch.equal(weights[name], value):
            raise WeightsError(f"{path}: {key} differs from the copy that it shares weights with")
        weights[name] = value.float()
    return weights


def _our_name(module: str, names: dict[str, str], *, num_msrb: int) -> str:
    if not (match := re.fullmatch(r"body\.(\d+)\.body\.(\d+)(?:\.(.+))?", module)):
        return module
    group, block, rest = match[1], match[2], match[3]
    if rest is None and int(block) == num_msrb:
        return f"groups.{group}.conv"
    return f"groups.{group}.blocks.{block}.{names.get(rest, rest)}"


def _sample(state: dict[str, Tensor]) -> str:
    return ", ".join(sorted(state)[:3]) or "no tensors"
