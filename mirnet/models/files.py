"""The project's own format: a folder with ``weights.safetensors`` and ``architecture.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mirnet.errors import UsageError, WeightsError, problem_of
from mirnet.models.network import Network, check_shapes, fill, stored
from mirnet.models.published import read_checkpoint
from mirnet.models.registry import NetworkConfig, by_family

WEIGHTS = "weights.safetensors"
ARCHITECTURE = "architecture.json"
FORMAT = 1
_MAX_DESCRIPTION = 1 << 20


class Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(FORMAT, ge=1, le=FORMAT, description="version of this format")
    architecture: dict[str, Any] = Field(description="the family as ``network``, and its sizes")
    extra: dict[str, Any] = Field(default_factory=dict, description="where the weights come from")

    def config(self) -> NetworkConfig:
        """The network described.

        Raises:
            UsageError: an unknown family or size; names the key.
        """
        sizes = dict(self.architecture)
        family = str(sizes.pop("network", ""))
        return by_family(family).configure(sizes, where="architecture")


def save_model(model: Network, directory: Path, *, extra: dict[str, Any] | None = None) -> Path:
    """Write the model as a folder; ``extra`` is stored in the JSON (run id, data digest, ...).

    The JSON is written last, so a folder with a JSON is complete.
    """
    config = model.config
    # earlier versions do not know sizes that have a default
    sizes = config.sizes.model_dump(mode="json", exclude_defaults=True)
    architecture = {"network": config.family} | sizes
    description = Description(format=FORMAT, architecture=architecture, extra=extra or {})
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in stored(model).items()},
        directory / WEIGHTS,
    )
    (directory / ARCHITECTURE).write_text(
        description.model_dump_json(indent=2) + "\n", encoding="utf-8"
    )
    return directory


def read_description(directory: Path) -> Description:
    """The JSON of a model folder.

    Raises:
        WeightsError: the JSON is missing or invalid.
    """
    path = directory / ARCHITECTURE
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_DESCRIPTION + 1)
        if len(content) > _MAX_DESCRIPTION:
            raise WeightsError(f"{path}: larger than {_MAX_DESCRIPTION} bytes")
        return Description.model_validate_json(content)
    except FileNotFoundError:
        raise WeightsError(f"{directory} is no model folder: {ARCHITECTURE} is missing") from None
    except ValidationError as error:
        raise WeightsError(f"{path}: {problem_of(error)}") from error


def read_config(directory: Path) -> NetworkConfig:
    """The family and sizes of a model folder.

    Raises:
        WeightsError: the JSON is missing or invalid, or names an unknown network.
    """
    description = read_description(directory)
    try:
        return description.config()
    except UsageError as error:
        raise WeightsError(f"{directory / ARCHITECTURE}: {error}") from error


def load_model(source: str | Path) -> Network:
    """The network of a model folder or a published checkpoint; float32 on CPU, in evaluation mode.

    It maps (N, 3, H, W) RGB in [0, 1] to the same shape; height and width must be multiples of its
    ``size_multiple``. :class:`~mirnet.inference.Enhancer` takes arrays of any size.

    Args:
        source: what ``mirnet train``, ``mirnet weights import`` or :func:`save_model` wrote, or a
            checkpoint file of a network's authors.

    Raises:
        WeightsError: a file is missing or damaged, or names and shapes do not fit; names the key.
    """
    source = Path(source)
    if source.is_file():
        return read_checkpoint(source)
    config, path = read_config(source), source / WEIGHTS
    try:
        check_shapes(config, _shapes(path), str(path))
        weights = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{source} is no model folder: {WEIGHTS} is missing") from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    model = config.build()
    fill(model, weights, origin=str(path))
    return model.eval()


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the arrays in a safetensors file, from its header."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 no mapping
