"""Backup and restore with a real S3 server and real databases, without the rest of the stack."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from mirnet.config import child_environment
from mirnet.errors import UsageError
from mirnet.stack import control, postgres
from mirnet.stack.backup import back_up, restore
from mirnet.stack.plan import StackPaths, load_plan, make_plan
from mirnet.stack.processes import MARKER
from mirnet.storage.s3 import S3Store
from tests.stack.conftest import open_to_postgres

SERVERS = ("postgres", "s3")


def make_home(root: Path, database: Literal["postgres", "sqlite"]) -> StackPaths:
    home = StackPaths(root)
    open_to_postgres(home)
    make_plan(home, project=root, database=database)
    names = ["mlflow/auth.db"] + (
        ["mlflow/mlflow.db", "prefect/prefect.db"] * (database == "sqlite")
    )
    for name in names:
        (home.root / name).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(home.root / name)) as connection, connection:
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
    assert {path.name for path in aside.iterdir()} <= {
        *("postgres", "mlflow", "prefect", "keys", "secrets.json"),
    }

    # a drill beside the stack, which goes on
    new = StackPaths(tmp_path / "elsewhere")
    with (
        control.serving(home, SERVERS),
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            env=child_environment() | {MARKER: load_plan(home)[0].stack_id},
            start_new_session=True,
        ) as other,
    ):
        restore(new, archive, report=print)
        assert bucket(home).get("artifacts/1/model.bin").data == b"weights"
        assert other.poll() is None
        other.kill()
    (plan, secrets), (old_plan, old_secrets) = load_plan(new), load_plan(home)
    assert secrets == old_secrets
    assert plan.stack_id != old_plan.stack_id
    assert plan.run_dir != old_plan.run_dir
    assert {p.name: p.read_bytes() for p in new.keys.iterdir()} == {
        p.name: p.read_bytes() for p in home.keys.iterdir()
    }
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


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """The archive with other members, and an index that fits them where there is one."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        members = {name: file.read() for name, file in files.items() if file is not None}
    change(members)
    if "backup.json" in members:
        index = json.loads(members.pop("backup.json"))
        index["sha256"] = {n: hashlib.sha256(data).hexdigest() for n, data in members.items()}
        members["backup.json"] = json.dumps(index).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def without_index(path: Path) -> None:
    rewritten(path, lambda members: members.__delitem__("backup.json"))


def without_a_database(path: Path) -> None:
    rewritten(path, lambda members: members.__delitem__("databases/prefect.db"))


def with_a_member_elsewhere(path: Path) -> None:
    rewritten(path, lambda members: members.update({"s3/tls/ca.pem": b"of somebody else"}))


def with_a_way_out(path: Path) -> None:
    rewritten(path, lambda members: members.update({"keys/../../out": b"x"}))


@pytest.mark.parametrize(
    "spoil",
    [
        *(swap_a_byte, cut, without_index, without_a_database),
        *(with_a_member_elsewhere, with_a_way_out, Path.unlink),
    ],
)
def test_a_damaged_archive_changes_nothing(
    small: tuple[StackPaths, Path], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    archive = Path(shutil.copy(small[1], tmp_path / "spoilt.tar"))
    spoil(archive)
    with pytest.raises(UsageError, match=r"spoilt\.tar"):
        restore(StackPaths(tmp_path / "new"), archive, report=print)
    assert not (tmp_path / "new" / "plan.json").exists()


def test_another_stack_is_replaced_only_if_asked_to(
    small: tuple[StackPaths, Path], tmp_path: Path
) -> None:
    other = make_home(tmp_path / "other", "sqlite")
    for path in (other.root / "mlflow", other.root / "prefect"):
        shutil.rmtree(path)
    with pytest.raises(UsageError, match="another stack"):
        restore(other, small[1], report=print)


@pytest.mark.parametrize("lost", ["secrets.json", "plan.json"])
def test_a_killed_restore_is_repeated(
    small: tuple[StackPaths, Path], tmp_path: Path, lost: str
) -> None:
    home = make_home(tmp_path / "home", "sqlite")
    home.restoring.touch()
    (home.root / lost).unlink()
    restore(home, small[1], report=print)
    assert load_plan(home)[1] == load_plan(small[0])[1]
    assert not home.restoring.exists()


@pytest.mark.parametrize("lost", ["restoring", "prefect"])
def test_what_is_not_whole_is_not_backed_up(tmp_path: Path, lost: str) -> None:
    home = make_home(tmp_path / "home", "sqlite")
    if lost == "prefect":
        shutil.rmtree(home.folder("prefect"))
    else:
        home.restoring.touch()
    with pytest.raises(UsageError, match=r"did not finish|prefect\.db is missing"):
        back_up(home, tmp_path / "stack.tar", report=print)
    assert not (tmp_path / "stack.tar").exists()


def test_an_archive_is_not_overwritten(small: tuple[StackPaths, Path]) -> None:
    with pytest.raises(UsageError, match="exists"):
        back_up(*small, report=print)


def test_a_stack_with_half_a_restore_does_not_start(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", "sqlite")
    home.restoring.touch()
    with pytest.raises(UsageError, match="did not finish"):
        control.up(home, project=tmp_path, timeout_s=1, progress=lambda _: None)
