"""The networks: by name, to and from files, published checkpoints, export."""

from mirnet.models.architecture import Architecture, architecture, build, names, num_parameters
from mirnet.models.files import load_model, save_model
from mirnet.models.published import read_checkpoint

__all__ = [
    "Architecture",
    "architecture",
    "build",
    "load_model",
    "names",
    "num_parameters",
    "read_checkpoint",
    "save_model",
]
