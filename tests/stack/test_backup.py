"""Backup and restore with a real S3 server and real databases, without the rest of the stack."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from mirnet.errors import UsageError
from mirnet.stack import control, postgres
from mirnet.stack.backup import back_up, restore
from mirnet.stack.plan import StackPaths, load_plan, make_plan
from mirnet.storage.s3 import S3Store
from tests.stack.conftest import open_to_postgres

SERVERS = ("postgres", "s3")


def make_home(root: Path, database: Literal["postgres", "sqlite"]) -> StackPaths:
    home = StackPaths(root)
    open_to_postgres(home)
    make_plan(home, project=root, database=database)
    home.folder("mlflow").mkdir()
    with closing(sqlite3.connect(home.folder("mlflow") / "auth.db")) as connection, connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('pipeline')")
    return home


def bucket(home: StackPaths) -> S3Store:
    plan, secrets = load_plan(home)
    return S3Store.with_keys(
        "mlflow",
        plan.url("s3"),
        access_key=secrets.s3_admin_key,
        secret_key=secrets.s3_admin_secret,
    )


def query(home: StackPaths, text: str) -> list[tuple[object, ...]]:
    """On MLflow's database, committed."""
    plan, secrets = load_plan(home)
    if plan.database == "sqlite":
        with closing(sqlite3.connect(home.folder("mlflow") / "mlflow.db")) as lite, lite:
            return lite.execute(text).fetchall()
    import psycopg2

    where = f"host=127.0.0.1 port={plan.ports['postgres']} user=mlflow dbname=mlflow"
    with (
        closing(psycopg2.connect(f"{where} password={secrets.postgres_mlflow}")) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(text)
        return cursor.fetchall() if cursor.description else []


# test_whole_stack_after.py has PostgreSQL in CI
@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> StackPaths:
    if request.param == "postgres" and postgres.find_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    made = make_home(tmp_path / "home", request.param)
    with control.serving(made, SERVERS):
        query(made, "CREATE TABLE model_versions (name TEXT)")
        query(made, "INSERT INTO model_versions VALUES ('champion')")
        bucket(made).put("artifacts/1/model.bin", b"weights")
    return made


def test_what_was_lost_comes_back(home: StackPaths, tmp_path: Path) -> None:
    archive = tmp_path / "stack.tar"
    back_up(home, archive, report=print)
    assert archive.stat().st_mode & 0o777 == 0o600
    with control.serving(home, SERVERS):
        query(home, "DELETE FROM model_versions")
        bucket(home).delete("artifacts/1/model.bin")
    with pytest.raises(UsageError, match="--replace moves them aside"):
        restore(home, archive, report=print)
    restore(home, archive, replace=True, report=print)
    with control.serving(home, SERVERS):
        assert query(home, "SELECT name FROM model_versions") == [("champion",)]
        assert bucket(home).get("artifacts/1/model.bin").data == b"weights"
    with closing(sqlite3.connect(home.folder("mlflow") / "auth.db")) as users:
        assert users.execute("SELECT name FROM users").fetchall() == [("pipeline",)]
    aside = next(home.root.glob("before-restore-*"))
    assert {path.name for path in aside.iterdir()} <= {"postgres", "mlflow", "prefect"}

    new = StackPaths(tmp_path / "elsewhere")
    restore(new, archive, report=print)
    assert load_plan(new)[1] == load_plan(home)[1]
    with control.serving(new, SERVERS):
        assert query(new, "SELECT name FROM model_versions") == [("champion",)]
        assert bucket(new).get("artifacts/1/model.bin").data == b"weights"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[StackPaths, Path]:
    """A home on SQLite and its archive."""
    root = tmp_path_factory.mktemp("backup")
    made = make_home(root / "home", "sqlite")
    back_up(made, root / "stack.tar", report=print)
    return made, root / "stack.tar"


def swap_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"CREATE TABLE users") + 3] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def without_index(path: Path) -> None:
    members = []
    with tarfile.open(path) as tar:
        for member in tar.getmembers()[:-1]:
            file = tar.extractfile(member)
            assert file is not None
            members.append((member, file))
        with tarfile.open(path.with_suffix(".new"), "w") as less:
            for member, file in members:
                less.addfile(member, file)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("spoil", [swap_a_byte, cut, without_index, Path.unlink])
def test_a_damaged_archive_changes_nothing(
    small: tuple[StackPaths, Path], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    archive = Path(shutil.copy(small[1], tmp_path / "spoilt.tar"))
    spoil(archive)
    with pytest.raises(UsageError, match=r"spoilt\.tar"):
        restore(StackPaths(tmp_path / "new"), archive, report=print)
    assert not (tmp_path / "new" / "plan.json").exists()


def test_a_stack_is_not_mixed_with_another(small: tuple[StackPaths, Path], tmp_path: Path) -> None:
    other = make_home(tmp_path / "other", "sqlite")
    with pytest.raises(UsageError, match="another stack"):
        restore(other, small[1], replace=True, report=print)


def test_an_archive_is_not_overwritten(small: tuple[StackPaths, Path]) -> None:
    with pytest.raises(UsageError, match="exists"):
        back_up(*small, report=print)


def test_a_stack_with_half_a_restore_does_not_start(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", "sqlite")
    home.restoring.touch()
    with pytest.raises(UsageError, match="did not finish"):
        control.up(home, project=tmp_path, timeout_s=1, progress=lambda _: None)
