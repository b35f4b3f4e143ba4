"""The base class of networks, and reading and writing of their weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mirnet.errors import WeightsError
from mirnet.models.registry import Architecture, NetworkConfig

# of normalisation layers; no output depends on it
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Prediction:
    """What a pass of training gives.

    Attributes:
        given: the output, or a function that computes it, if that takes long: it is called if a
            loss term reads the output.
        details: by-products that loss terms read, (N, ...) each, by the names that the network's
            entry lists.
    """

    given: Tensor | Callable[[], Tensor]
    details: Mapping[str, Tensor] = field(default_factory=dict)

    @functools.cached_property
    def output(self) -> Tensor:
        """As of ``forward``."""
        return self.given if isinstance(self.given, Tensor) else self.given()


class Network(nn.Module):
    """Base of all networks.

    ``forward`` maps (N, C, H, W) float in [0, 1] to (N, 3, H', W'), unclamped. If its entry has
    ``pools_globally``, ``forward`` takes a :class:`~mirnet.models.layers.pooling.GlobalPooling` as
    optional second parameter and uses it for every average over the whole image.
    """

    config: NetworkConfig  # set by NetworkConfig.build

    # number of global averages per pass; repeated blocks have their own
    num_statistics = 0

    # of training, by its name in the entry; set before each step
    phase: str | None = None

    @property
    def architecture(self) -> Architecture:
        return self.config.architecture

    @property
    def margin(self) -> int:
        """Pixels at the border of the input that zero padding affects."""
        return self.architecture.margin

    @property
    def size_multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.architecture.size_multiple

    @property
    def min_size(self) -> int:
        """Minimum height and width of the input."""
        return self.architecture.min_size

    def predict(self, low: Tensor, high: Tensor) -> Prediction:  # noqa: ARG002
        """The pass of training where loss terms read by-products, and in phases.

        Takes input and reference, (N, 3, H, W) both.

        The reference is there for by-products alone, such as its decomposition: the output is that
        of ``forward``, except in a phase that says otherwise.
        """
        return Prediction(self(low))

    def add_training_parts(self, phases: Collection[str]) -> None:
        """Add modules that the given phases of training need; checkpoints of a run hold them.

        Models are stored without them, and ``forward`` does not use them.
        """

    def folded(self) -> Network:
        """An equal function of fewer operations, for inference and export; by default, itself."""
        return self

    def repeated_blocks(self) -> Sequence[nn.Module]:
        """Equal blocks that are compiled one by one, so that one compilation serves all.

        Each takes one or more feature maps, then a ``GlobalPooling`` if it pools (optional, last),
        and has a ``num_statistics``.
        """
        return (self,)


def num_parameters(model: nn.Module) -> int:
    """Number of parameters; shared ones are counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def stored(model: nn.Module) -> dict[str, Tensor]:
    """Tensors that a file stores, by name: parameters, each shared one once, and buffers."""
    persistent = model.state_dict().keys()
    kept = {n: b for n, b in model.named_buffers() if n in persistent and not n.endswith(COUNTER)}
    return dict(model.named_parameters()) | kept


def fill(model: nn.Module, weights: dict[str, Tensor], *, origin: str) -> None:
    """Copy weights into the model after checking every name, shape and value.

    Raises:
        WeightsError: a key is missing, left over, of a wrong shape or not finite; names the keys.
    """
    wanted = stored(model)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    bad = [f"{name} is not finite" for name, value in weights.items() if not _finite(value)]
    _refuse([*_misfits(wanted, shapes), *bad], origin)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(weights[name])


def check_shapes(config: NetworkConfig, shapes: Mapping[str, tuple[int, ...]], origin: str) -> None:
    """Refuse weights that are not those of a network, before memory is taken for either.

    Args:
        shapes: of the weights, by name.

    Raises:
        WeightsError: a key is missing, left over or of a wrong shape; names the keys.
    """
    with torch.device("meta"):
        wanted = stored(config.build())
    _refuse(_misfits(wanted, shapes), origin)


def _misfits(wanted: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    problems = [
        _listed("missing", wanted.keys() - shapes.keys()),
        _listed("unexpected", shapes.keys() - wanted.keys()),
        *(
            f"{name} has shape {shapes[name]}, expected {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in shapes and shapes[name] != tuple(tensor.shape)
        ),
    ]
    return [problem for problem in problems if problem]


def _refuse(problems: Sequence[str], origin: str) -> None:
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{origin}: {'; '.join(problems[:3])}{more}")


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _listed(what: str, keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    if not ordered:
        return ""
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return f"{what} {len(ordered)}: {', '.join(ordered[:5])}{more}"
