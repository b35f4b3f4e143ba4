"""Low-light image enhancement with MIRNet as a pipeline.

The public names are loaded on first use: importing the package alone loads no torch and no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirnet.evaluation.scoring import Scores, score
    from mirnet.inference import Enhancer
    from mirnet.models import list_architectures, load_model
    from mirnet.stages import open_enhancer

    __version__: str

__all__ = [
    "Enhancer",
    "Scores",
    "__version__",
    "list_architectures",
    "load_model",
    "open_enhancer",
    "score",
]

_HOMES = {
    "Enhancer": ("mirnet.inference", "Enhancer"),
    "Scores": ("mirnet.evaluation.scoring", "Scores"),
    "list_architectures": ("mirnet.models", "list_architectures"),
    "load_model": ("mirnet.models", "load_model"),
    "open_enhancer": ("mirnet.stages", "open_enhancer"),
    "score": ("mirnet.evaluation.scoring", "score"),
}

# hidden from type checkers, which would take any name for one that exists
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = _version()
        elif name in _HOMES:
            from importlib import import_module

            module, attribute = _HOMES[name]
            value = getattr(import_module(module), attribute)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def _version() -> str:
    # importlib.metadata takes longer to import than all the rest
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mirnet-pipeline")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0"
