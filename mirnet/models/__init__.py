"""The networks: by name, to and from files, published checkpoints, export.

What needs torch is loaded on first use: params need the registry alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mirnet.models.registry import (
    Architecture as Architecture,
    architectures as architectures,
    build as build,
    configure as configure,
    list_architectures as list_architectures,
)

if TYPE_CHECKING:
    from mirnet.models.files import load_model as load_model, save_model as save_model
    from mirnet.models.network import Network as Network, num_parameters as num_parameters
    from mirnet.models.published import read_checkpoint as read_checkpoint
else:
    _HOMES = {
        "Network": "network",
        "load_model": "files",
        "num_parameters": "network",
        "read_checkpoint": "published",
        "save_model": "files",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
