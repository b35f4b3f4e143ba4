"""Reads checkpoints that the authors of a network published.

Loading never unpickles code (``weights_only``). Which network a file belongs to, its sizes and our
names for its tensors come from the formats of the registered networks.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mirnet.errors import UsageError, WeightsError
from mirnet.models.network import COUNTER, Network, check_shapes, fill
from mirnet.models.registry import Architecture, architectures

# exceptions of reading bytes that are not a checkpoint
_DAMAGE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError, OverflowError, struct.error),
    SafetensorError,
)


@dataclass(frozen=True)
class PublishedFormat:
    """How a checkpoint that the authors of a network published is recognised and read.

    Attributes:
        sizes: the sizes of the network that the tensors, by their names in the file, belong to;
            None: they are not of this network.
        weights: the same tensors under our names, float32. Given the sizes as well. Raises
            :class:`~mirnet.errors.WeightsError` with the names of keys that are missing, left over
            or contradict each other.
    """

    sizes: Callable[[Mapping[str, Tensor]], dict[str, Any] | None]
    weights: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]


def count_modules(state: Mapping[str, Tensor], name: str) -> int:
    """Number of modules ``name.0``, ``name.1``, ... that a checkpoint holds tensors of."""
    numbers = (re.match(rf"{re.escape(name)}\.(\d{{1,3}})\.", key) for key in state)
    return max((int(match[1]) + 1 for match in numbers if match), default=0)


def plain_weights(state: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    """The tensors under their names in the file, float32."""
    return {name: value.float() for name, value in state.items()}


def same_names(key: str, **sizes: tuple[str, int]) -> PublishedFormat:
    """The format of a network whose modules are named as in its published checkpoints.

    Args:
        key: of a tensor that only checkpoints of this network have.
        sizes: key of a tensor and the dimension of it that is the size of this name.
    """
    wanted = {key, *(of for of, _ in sizes.values())}

    def read_sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        if not wanted <= state.keys():
            return None
        return {name: dimension(state[of], place) for name, (of, place) in sizes.items()}

    return PublishedFormat(read_sizes, plain_weights)


def dimension(tensor: Tensor, place: int = 0) -> int:
    """Size of a tensor in one dimension; 0, which no network has, if it has fewer."""
    return tensor.shape[place] if place < tensor.dim() else 0


def from_tensorflow(tensor: Tensor) -> Tensor:
    """A kernel (height, width, in, out), or of a transposed convolution, in PyTorch's layout.

    Other tensors stay.
    """
    return tensor.permute(3, 2, 0, 1).contiguous() if tensor.dim() == 4 else tensor


def read_checkpoint(path: Path) -> Network:
    """Build the network that a published checkpoint holds, with its weights, in evaluation mode.

    The sizes come from the file.

    Raises:
        WeightsError: not a checkpoint, not one of a registered network, or keys missing,
            unexpected or of a wrong shape; names the file and the keys.
    """
    state = read_state(path)
    readable = [a for a in architectures() if a.published is not None]
    for architecture in readable:
        model = _converted(state, architecture, path=path)
        if model is not None:
            return model.eval()
    titles = " or ".join(architecture.title for architecture in readable)
    found = ", ".join(sorted(state)[:3]) or "no tensors"
    raise WeightsError(f"{path}: no {titles} checkpoint (found {found})")


def _converted(
    state: dict[str, Tensor], architecture: Architecture, *, path: Path
) -> Network | None:
    """The network with these weights, where they are of this family."""
    assert architecture.published is not None
    published = architecture.published()
    sizes = published.sizes(state)
    if sizes is None:
        return None
    try:
        config = architecture.configure(sizes, where="sizes")
        weights = published.weights(state, config.sizes)
    except UsageError as error:
        raise WeightsError(f"{path}: no {architecture.title} has these {error}") from error
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    # before memory is taken for the network, or values are read
    check_shapes(config, {name: tuple(w.shape) for name, w in weights.items()}, str(path))
    model = config.build()
    fill(model, weights, origin=str(path))
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: safetensors, or a state dict of PyTorch, which runs no code.

    Raises:
        WeightsError: it is neither, or holds other things; names the file.
    """
    try:
        content: Any = _content(path)
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
        if name.endswith(COUNTER):
            continue
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or not value.is_floating_point():
            raise WeightsError(f"{path}: {name} is no tensor of floating point numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {name} has more elements than the file")
        if name in state:
            raise WeightsError(f"{path}: {name} is there twice, with and without 'module.'")
        state[name] = value
    return state


def _content(path: Path) -> object:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
