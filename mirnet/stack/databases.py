"""Dumps and loads the databases of a stack: by PostgreSQL's own tools, by SQLite's backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from mirnet.errors import ServiceError
from mirnet.stack import postgres
from mirnet.stack.plan import Secrets, StackPaths, StackPlan

_ON_POSTGRES = ("mlflow", "prefect")
_SQLITE = {"mlflow.db": "mlflow", "auth.db": "mlflow", "prefect.db": "prefect"}


def dumps(database: Literal["postgres", "sqlite"]) -> list[str]:
    """Names of the dumps that every backup has; MLflow's accounts come with its first start."""
    return [f"{name}.{'dump' if database == 'postgres' else 'db'}" for name in _ON_POSTGRES]


def missing(home: StackPaths, database: Literal["postgres", "sqlite"]) -> list[str]:
    """The databases that a stack must have and has not."""
    if database == "postgres":
        return [] if (home.folder("postgres") / "PG_VERSION").is_file() else ["postgres"]
    return [name for name in dumps(database) if not (home.folder(_SQLITE[name]) / name).is_file()]


def present(home: StackPaths) -> list[Path]:
    """The databases of a stack that are on disk, with SQLite's journals, relative to its folder."""
    found = [home.folder("postgres")] if home.folder("postgres").exists() else []
    for name, folder in _SQLITE.items():
        found += home.folder(folder).glob(f"{name}*")
    return [path.relative_to(home.root) for path in found]


def dump(home: StackPaths, plan: StackPlan, secrets: Secrets, into: Path) -> dict[str, Path]:
    """One file per database that exists, each a consistent snapshot; servers may write meanwhile.

    Raises:
        ServiceError: a database cannot be read.
    """
    made: dict[str, Path] = {}
    if plan.database == "postgres":
        cluster = postgres.cluster(home, plan)
        for name in _ON_POSTGRES:
            made[name] = into / f"{name}.dump"
            cluster.dump(secrets.postgres, name, made[name])
    for name, folder in _SQLITE.items():
        path = home.folder(folder) / name
        if path.is_file():
            made[path.stem] = into / name
            _copy(path, made[path.stem])
    return made


def load(home: StackPaths, plan: StackPlan, secrets: Secrets, files: Sequence[Path]) -> None:
    """Fill the databases, which are new: empty on PostgreSQL, not there on SQLite.

    Raises:
        ServiceError: PostgreSQL refuses a dump, for instance one of a newer version.
    """
    for path in files:
        if path.suffix == ".dump":
            postgres.cluster(home, plan).load(secrets.postgres, path.stem, path)
            continue
        target = home.folder(_SQLITE[path.name]) / path.name
        target.parent.mkdir(exist_ok=True, mode=0o700)
        _copy(path, target)
        target.chmod(0o600)


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as found,
            closing(sqlite3.connect(target)) as made,
        ):
            found.backup(made)
    except sqlite3.Error as error:
        raise ServiceError(f"{source}: {error}") from error
