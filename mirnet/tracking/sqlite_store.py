"""The SQLite store of a workspace, which is whole or not there."""

from __future__ import annotations

from pathlib import Path

from mirnet.atomic import replacing

_SCHEME = "sqlite:///"


def local_store(uri: str) -> Path | None:
    """The file of a SQLite address; none of a server or of another database."""
    return Path(uri.removeprefix(_SCHEME)) if uri.startswith(_SCHEME) else None


def make_whole(path: Path) -> None:
    """Create the store with all its tables, unless there is one.

    MLflow itself creates them one after the other in place: a process that is killed meanwhile, or
    a full disk, leaves a store that no later one can open.

    Raises:
        SQLAlchemyError, OSError: it cannot be written; nothing is left.
    """
    if path.exists():
        return
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    with replacing(path, keep=True) as fresh:
        engine = create_sqlalchemy_engine(f"{_SCHEME}{fresh}")  # type: ignore[no-untyped-call]
        try:
            _initialize_tables(engine)  # type: ignore[no-untyped-call]
        finally:
            engine.dispose()
