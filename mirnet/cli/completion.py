"""Values that the shell completes: presets, models and runs of a local store.

Called at each press of the tab key, so nothing heavy is imported and no server is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirnet.errors import UsageError

if TYPE_CHECKING:
    from mirnet.config import Settings


def presets(incomplete: str) -> list[str]:
    """Names of presets; without a match the shell completes files."""
    from mirnet.params import preset_names

    return _starting(preset_names(), incomplete)


def models(incomplete: str) -> list[str]:
    """``base``, ``models:/NAME@ALIAS`` and ``models:/NAME/NUMBER``."""
    return _starting(["base", *_references()], incomplete)


def versions(incomplete: str) -> list[str]:
    """``models:/NAME@ALIAS`` and ``models:/NAME/NUMBER``, for what needs the registry."""
    return _starting(_references(), incomplete)


def _references() -> list[str]:
    from mirnet.tracking.names import model_references

    settings = _settings()
    return model_references(settings) if settings else []


def runs(incomplete: str) -> list[str]:
    """Names of runs."""
    from mirnet.tracking.names import run_names

    settings = _settings()
    return _starting(run_names(settings), incomplete) if settings else []


def _settings() -> Settings | None:
    from mirnet.config import load_settings

    try:
        return load_settings()
    except UsageError:  # a bad variable is the command's to report
        return None


def _starting(names: list[str], incomplete: str) -> list[str]:
    # a shell prints them as they are: none with control characters
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]
