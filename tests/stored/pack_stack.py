"""Writes ``stack-0.1.tar.xz`` from the folder of a stopped stack: README.md.

python tests/stored/pack_stack.py /srv/mirnet-0.1/stack
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

KEPT = ("plan.json", "secrets.json", "state.json", "lock", "running")
DATABASES = ("prefect/prefect.db", "mlflow/mlflow.db", "mlflow/auth.db")


def pack(home: Path, target: Path) -> None:
    """Ports, secrets, states and databases; no logs, no objects."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stack"
        for name in (*KEPT, *DATABASES, "mlflow/auth.ini"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            if name not in DATABASES:
                shutil.copy2(home / name, copy / name)
                continue
            with (
                contextlib.closing(sqlite3.connect(home / name)) as source,
                contextlib.closing(sqlite3.connect(copy / name)) as database,
            ):
                source.backup(database)
                database.execute("PRAGMA journal_mode=DELETE")
                database.execute("VACUUM")
        with tarfile.open(target, "w:xz", preset=9) as stored:
            stored.add(copy, arcname=".")


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(__file__).with_name("stack-0.1.tar.xz"))
