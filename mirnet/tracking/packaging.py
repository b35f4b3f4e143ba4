"""A model as MLflow package: a pt2 graph, the model folder, and a stored input and output.

The package has ``data/model.pt2`` (torch.export, no pickle, none of our code), ``native/`` in the
project's format, and ``check/`` with an input and the network's output for it. The graph includes
the margin that keeps zero padding out of the image; packages of older versions do not.
"""

from __future__ import annotations

import logging
import shutil
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mirnet.config import environment
from mirnet.errors import WeightsError, first_line
from mirnet.models import Network, load_model
from mirnet.models.margin import Margined
from mirnet.tracking.trust import NATIVE

if TYPE_CHECKING:
    from mlflow.models import Model
    from torch import nn

log = logging.getLogger(__name__)

CHECK, MARGIN = "check", "margin"
# no bf16 here: the package is float32, and other machines round slightly differently
TOLERANCE = 1e-3
_PACKAGES = ("torch", "numpy")


def write_package(model_dir: Path, package: Path, *, mlflow_model: Model | None = None) -> Path:
    """Write the MLflow package of a model in the project's format.

    Raises:
        WeightsError: the folder is not a model.
        UsageError: the network has no pt2 form.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    network = load_model(model_dir)
    network.architecture.check_export("pt2")
    model = Margined(network).eval()
    example = example_input(model)
    with torch.inference_mode():
        output = model(torch.from_numpy(example)).numpy()
    # -1 and an example with batch 2 and H != W: otherwise the graph takes one size only
    free = Schema([TensorSpec(np.dtype("float32"), (-1, 3, -1, -1))])
    mlflow.pytorch.save_model(
        model,
        str(package),
        mlflow_model=mlflow_model,
        signature=ModelSignature(inputs=free, outputs=free),
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[f"{name}=={installed(name).partition('+')[0]}" for name in _PACKAGES],
        metadata={
            "layout": "NCHW",
            "range": "[0, 1], output not clamped",
            "channels": "RGB",
            "size_multiple": model.size_multiple,
            MARGIN: model.margin,
        },
    )
    shutil.copytree(model_dir, package / NATIVE)
    (package / CHECK).mkdir()
    np.save(package / CHECK / "input.npy", example)
    np.save(package / CHECK / "output.npy", output)
    return package


def example_input(model: Margined | Network) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A batch of two, not square, of a size that the network accepts; deterministic."""
    # half of the height is a size as well
    unit = max(model.size_multiple, model.min_size)
    height, width = (max(side // unit, 2) * unit for side in (32, 48))
    rng = np.random.default_rng(0)
    return rng.uniform(0, 0.3, size=(2, 3, height, width)).astype(np.float32)


def verify_package(package: Path) -> None:
    """Load both forms without pickle and compare with the stored output.

    Raises:
        WeightsError: a form is missing, does not load, or gives another output.
    """
    stored_input, expected = (_stored(package, name) for name in ("input", "output"))
    batch = torch.from_numpy(stored_input)
    single = batch[:1, :, : batch.shape[2] // 2, :]
    native = _native(package)
    exported = _load_exported(package)
    with torch.inference_mode():
        _compare(f"{package}/{NATIVE}", native(batch), torch.from_numpy(expected))
        _compare(f"{package}/data/model.pt2", exported(batch), torch.from_numpy(expected))
        # another size and batch: a graph specialised to its example raises here
        _compare(f"{package}/data/model.pt2", _run_free(exported, single), native(single))


def _native(package: Path) -> nn.Module:
    """The folder's network in the form of the graph, with margin unless the package is older."""
    from mlflow.models import Model

    network = load_model(package / NATIVE).eval()
    metadata = Model.load(str(package)).metadata or {}
    return Margined(network) if MARGIN in metadata else network


def _load_exported(package: Path) -> nn.Module:
    import mlflow.pytorch
    from mlflow.exceptions import MlflowException

    try:
        with environment(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"):
            loaded: nn.Module = mlflow.pytorch.load_model(str(package))
    except (MlflowException, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{package} does not load: {first_line(error)}") from error
    return loaded


def _run_free(exported: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    try:
        output: torch.Tensor = exported(batch)
    except (AssertionError, RuntimeError) as error:
        raise WeightsError(
            f"the exported graph takes one size only: {first_line(error)}"
        ) from error
    return output


def _compare(name: str, output: torch.Tensor, expected: torch.Tensor) -> None:
    if output.shape != expected.shape:
        raise WeightsError(
            f"{name} gives shape {tuple(output.shape)}, stored is {tuple(expected.shape)}"
        )
    difference = float((output - expected).abs().max())
    if not difference <= TOLERANCE:
        raise WeightsError(
            f"{name} does not give its stored output: differs by up to {difference:.3g}"
        )


def _stored(package: Path, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    path = package / CHECK / f"{name}.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is missing or damaged: {first_line(error)}") from error
