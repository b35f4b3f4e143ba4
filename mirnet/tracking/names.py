"""Names of runs and models in a local store, read within milliseconds, as for shell completion.

MLflow itself takes seconds to import, so its SQLite file is read directly. Nothing is created, and
no server is asked.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mirnet.config import Settings

_VERSIONS = "SELECT 'models:/' || name || '/' || version FROM model_versions ORDER BY version DESC"
_ALIASES = "SELECT 'models:/' || name || '@' || alias FROM registered_model_aliases ORDER BY alias"
_MODELS = "SELECT name FROM registered_models LIMIT 1"
_RUNS = "SELECT name FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 100"


def model_references(settings: Settings) -> list[str]:
    """Addresses of all aliases, then of all versions; empty where the store is a server."""
    return _column(settings, _ALIASES) + _column(settings, _VERSIONS)


def run_names(settings: Settings) -> list[str]:
    """Names of the newest 100 runs, each once; empty where the store is a server."""
    return list(dict.fromkeys(_column(settings, _RUNS)))


def is_empty(store: Path) -> bool:
    """Whether a SQLite store has neither runs nor models; without a file, too.

    Reading the registry or the runs creates an empty one. False where that cannot be told.
    """
    if not store.is_file():
        return True
    try:
        return not any(_read(store, query) for query in (_RUNS, _MODELS))
    except sqlite3.Error:
        return False


def _column(settings: Settings, query: str) -> list[str]:
    path = Path(settings.mlflow_uri.removeprefix("sqlite:///"))
    if not settings.mlflow_uri.startswith("sqlite:///") or not path.is_file():
        return []
    try:
        return _read(path, query)
    except sqlite3.Error:  # locked, or of another version of MLflow: no suggestions
        return []


def _read(path: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as store:
        return [str(row[0]) for row in store.execute(query)]
