"""PostgreSQL of the stack: find it, initialise it, create one role and database per client."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import child_environment
from mirnet.errors import ServiceError, last_line
from mirnet.stack.plan import StackPaths, StackPlan, write_private

if TYPE_CHECKING:
    import psycopg2

SUPERUSER = "mirnet"
_OWNER = "postgres"  # initdb and postgres refuse to run as root


@dataclass(frozen=True)
class Cluster:
    """One database cluster on loopback."""

    programs: Path
    data: Path
    port: int
    owner: str | None

    @property
    def argv(self) -> tuple[str, ...]:
        """Command of the server: TCP on loopback with passwords, without a socket file."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "64MB",
            "log_statement": "none",
        }
        chosen = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        return (str(self.programs / "postgres"), "-D", str(self.data), *chosen)

    def initialise(self, password: str) -> None:
        """Create the files, once; whole or not at all.

        Raises:
            ServiceError: initdb fails; carries its last line. Or what is there is no cluster.
        """
        if (self.data / "PG_VERSION").is_file():
            return
        if self.data.exists():
            raise ServiceError(f"{self.data} is not a database of PostgreSQL", transient=False)
        unfinished = self.data.with_name(f"{self.data.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        password_file = self.data.parent / f".{self.data.name}.password"
        write_private(password_file, password)
        try:
            for path in (unfinished, password_file):
                if self.owner is not None:
                    shutil.chown(path, user=self.owner, group=self.owner)
            made = subprocess.run(
                [
                    str(self.programs / "initdb"),
                    f"--pgdata={unfinished}",
                    f"--username={SUPERUSER}",
                    "--auth=scram-sha-256",
                    f"--pwfile={password_file}",
                    "--encoding=UTF8",
                    "--no-locale",
                ],
                user=self.owner,
                group=self.owner,
                extra_groups=[] if self.owner else None,
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
        finally:
            password_file.unlink(missing_ok=True)
        if made.returncode:
            raise ServiceError(f"initdb of {self.data}: {last_line(made.stderr or made.stdout)}")
        unfinished.rename(self.data)

    def create_databases(self, password: str, owners: dict[str, str]) -> None:
        """One role and one database of the same name per client. Idempotent.

        Raises:
            ServiceError: the server refuses.
        """
        import psycopg2
        from psycopg2 import sql

        try:
            with self._connect(password) as connection, connection.cursor() as cursor:
                for name, secret in owners.items():
                    role = sql.Identifier(name)
                    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
                    verb = "ALTER" if cursor.fetchone() else "CREATE"
                    cursor.execute(
                        sql.SQL(f"{verb} ROLE {{}} LOGIN PASSWORD {{}}").format(
                            role, sql.Literal(secret)
                        )
                    )
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                    if not cursor.fetchone():
                        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
                    # by default every role may connect to every database
                    cursor.execute(
                        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role)
                    )
        except psycopg2.Error as error:
            reason = last_line(str(error))
            raise ServiceError(f"PostgreSQL at 127.0.0.1:{self.port}: {reason}") from error

    def dump(self, password: str, database: str, path: Path) -> None:
        """Write a consistent snapshot in PostgreSQL's custom format.

        Raises:
            ServiceError: pg_dump is missing or fails; carries its last line.
        """
        self._run("pg_dump", password, "--format=custom", f"--file={path}", database)

    def load(self, password: str, database: str, path: Path) -> None:
        """Fill an empty database from :meth:`dump`, wholly or not at all.

        Raises:
            ServiceError: pg_restore is missing or fails; carries its last line.
        """
        options = ("--single-transaction", "--exit-on-error", f"--dbname={database}")
        self._run("pg_restore", password, *options, str(path))

    def _run(self, program: str, password: str, *arguments: str) -> None:
        where = ("--host=127.0.0.1", f"--port={self.port}", f"--username={SUPERUSER}")
        try:
            done = subprocess.run(
                [str(self.programs / program), "--no-password", *where, *arguments],
                env=child_environment(PGPASSWORD=password),
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise ServiceError(f"{self.programs / program} is missing", transient=False) from error
        if done.returncode:
            raise ServiceError(f"{program}: {last_line(done.stderr)}", transient=False)

    def problem(self, password: str) -> str | None:
        """None if a query is answered, else the problem."""
        import psycopg2

        try:
            with self._connect(password) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as error:
            return f"127.0.0.1:{self.port}: {last_line(str(error))}"
        return None

    @contextmanager
    def _connect(self, password: str) -> Iterator[psycopg2.extensions.connection]:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            password=password,
            dbname="postgres",
            connect_timeout=5,
        )
        try:
            connection.autocommit = True  # CREATE DATABASE refuses to run in a transaction
            yield connection
        finally:
            connection.close()


def cluster(home: StackPaths, plan: StackPlan) -> Cluster:
    """The cluster of a stack.

    Raises:
        ServiceError: PostgreSQL is not installed, or its account cannot access the folder.
    """
    programs = find_programs()
    if programs is None:
        raise ServiceError(
            "this stack was made on PostgreSQL, which is not installed any more", transient=False
        )
    data = home.folder("postgres")
    return Cluster(programs, data, plan.ports["postgres"], owner_for(data))


def find_programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql")
    if versions.is_dir():
        folders += sorted(versions.glob("*/bin"), key=lambda p: -float(p.parent.name))
    for folder in folders:
        if all((folder / name).is_file() for name in ("initdb", "postgres")):
            return folder
    return None


def owner_for(folder: Path) -> str | None:
    """The account that the server must run under: PostgreSQL's if we are root, else ours.

    Raises:
        ServiceError: we are root and that account is missing or cannot access the folder.
    """
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_OWNER)
    except KeyError as error:
        raise ServiceError(f"PostgreSQL as root needs the account {_OWNER}") from error
    closed = [p for p in folder.absolute().parents if p.exists() and not p.stat().st_mode & 0o001]
    if closed:
        raise ServiceError(f"the account {_OWNER} cannot reach {closed[-1]}")
    return _OWNER
