"""The project's own format: a folder with ``weights.safetensors`` and ``architecture.json``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirnet.errors import WeightsError
from mirnet.models.architecture import Architecture, architecture_of
from mirnet.models.mirnet import MIRNet
from mirnet.models.mirnet_v2 import MIRNetV2

WEIGHTS = "weights.safetensors"
ARCHITECTURE = "architecture.json"
FORMAT = 1


class Description(BaseModel):
    """Content of ``architecture.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(FORMAT, ge=1, le=FORMAT, description="version of this format")
    architecture: Architecture
    extra: dict[str, Any] = Field(default_factory=dict, description="where the weights come from")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, each shared one once, contiguous on CPU."""
    return {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()
    }


def save_model(model: nn.Module, directory: Path, *, extra: dict[str, Any] | None = None) -> Path:
    """Write the model as a folder; ``extra`` is kept in the JSON (run id, data digest, ...).

    The JSON comes last, so that a folder with a JSON is whole.
    """
    description = Description(format=FORMAT, architecture=architecture_of(model), extra=extra or {})
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights_of(model), directory / WEIGHTS)
    (directory / ARCHITECTURE).write_text(
        description.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )
    return directory


def read_description(directory: Path) -> Description:
    """The JSON of a model folder.

    Raises:
        WeightsError: the JSON is missing or is not ours.
    """
    path = directory / ARCHITECTURE
    try:
        return Description.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"{directory} is no model folder: {ARCHITECTURE} is missing") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise WeightsError(f"{path}: {where or 'content'}: {problem['msg']}") from error


def load_model(directory: str | Path) -> MIRNet | MIRNetV2:
    """The network of a model folder; float32 on CPU, in evaluation mode.

    It maps (N, 3, H, W) RGB in [0, 1] to the same shape; sides are multiples of its
    ``size_multiple``. :class:`~mirnet.inference.Enhancer` takes arrays of any size.

    Args:
        directory: what ``mirnet train``, ``mirnet weights import`` or :func:`save_model` wrote.

    Raises:
        WeightsError: a file is missing or damaged, or names and shapes do not fit; names the key.
    """
    directory = Path(directory)
    description = read_description(directory)
    path = directory / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{directory} is no model folder: {WEIGHTS} is missing") from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    model = description.architecture.build()
    fill(model, weights, origin=str(path))
    return model.eval()


def fill(model: nn.Module, weights: dict[str, Tensor], *, origin: str) -> None:
    """Copy weights into the model's parameters after checking every name, shape and value.

    Raises:
        WeightsError: a key is missing, left over, of a wrong shape or not finite; names the keys.
    """
    parameters = dict(model.named_parameters())
    problems = [
        _listed("missing", parameters.keys() - weights.keys()),
        _listed("unexpected", weights.keys() - parameters.keys()),
        *(
            f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(parameter.shape)}"
            for name, parameter in parameters.items()
            if name in weights and weights[name].shape != parameter.shape
        ),
        *(f"{name} is not finite" for name, value in weights.items() if not value.isfinite().all()),
    ]
    found = [problem for problem in problems if problem]
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise WeightsError(f"{origin}: {'; '.join(found[:3])}{more}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _listed(what: str, keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    if not ordered:
        return ""
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return f"{what} {len(ordered)}: {', '.join(ordered[:5])}{more}"
