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
_UP = _DOWN | {"top.4": "expand"}
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
    **{f"skff_{row}.{a}": f"fusion_{row}.{b}" for row in ("top", "mid") for a, b in _SKFF.items()},
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
    inner = [int(m[1]) for key in state if (m := re.match(r"body\.\d+\.body\.(\d+)\.", key))]
    outer = [int(m[1]) for key in state if (m := re.match(r"body\.(\d+)\.", key))]
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
    return {str(key).removeprefix("module."): value for key, value in content.items()}


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
