"""The networks: by name, to and from files, published checkpoints, export.

What needs torch is loaded when it is asked for: params ask the registry alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mirnet.models.registry import Architecture, architectures, build, configure, list_architectures

if TYPE_CHECKING:
    from mirnet.models.files import load_model, save_model
    from mirnet.models.network import Network, num_parameters
    from mirnet.models.published import read_checkpoint

__all__ = [
    "Architecture",
    "Network",
    "architectures",
    "build",
    "configure",
    "list_architectures",
    "load_model",
    "num_parameters",
    "read_checkpoint",
    "save_model",
]
_HOMES = {
    "Network": "network",
    "load_model": "files",
    "num_parameters": "network",
    "read_checkpoint": "published",
    "save_model": "files",
}


# hidden from type checkers, which would take any name for one that exists
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
