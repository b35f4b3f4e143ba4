"""Backup and restore of a stack: its databases, its model store and its secrets, in one file.

The archive is a tar file: ``secrets.json``, the keys that sign models in ``keys/``, one dump
per database, the objects of MLflow's bucket (packages of models, artifacts of runs), and at the end
``backup.json`` with the SHA-256 of every other member. Databases are dumped before objects are
copied: what a database refers to was stored before.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mirnet import __version__
from mirnet.atomic import replacing
from mirnet.errors import UsageError
from mirnet.signals import termination_as_exception
from mirnet.stack import control, databases
from mirnet.stack.plan import Secrets, StackPaths, StackPlan, load_plan, make_plan, write_private
from mirnet.stack.state import held, supervisor_runs
from mirnet.storage.s3 import S3Store
from mirnet.storage.store import ObjectMissing

_BUCKET = "mlflow"
_INDEX = "backup.json"
_SERVERS = ("postgres", "s3")
_MEMBER = re.compile(
    r"secrets\.json|keys/[\w-]+(\.[\w-]+)*|databases/[a-z]+\.(db|dump)|objects/.+", re.DOTALL
)
_CHUNK = 1 << 20

Report = Callable[[str], None]


class BackupIndex(BaseModel):
    """What an archive holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    made_at: datetime
    mirnet_version: str
    stack_id: str
    database: Literal["postgres", "sqlite"]
    sha256: dict[str, str]


def back_up(home: StackPaths, archive: Path, *, report: Report) -> BackupIndex:
    """Write an archive, mode 0600, whole or not at all. The stack may run or be stopped.

    Raises:
        UsageError: no stack here, one without its databases, or the archive exists.
        ServiceError: a database or the S3 server does not start, or a dump fails.
        StorageError: an object cannot be read.
    """
    if archive.exists():
        raise UsageError(f"{archive} exists: choose another name")
    with _undisturbed(home):
        _check_whole(home)
        with (
            control.serving(home, _SERVERS),
            replacing(archive, mode=0o600) as part,
            tempfile.TemporaryDirectory() as scratch,
            tarfile.open(part, mode="w") as tar,
        ):
            plan, secrets = load_plan(home)
            writer = _Writer(tar)
            for path in (home.secrets, *sorted(home.keys.glob("*"))):
                writer.add(str(path.relative_to(home.root)), path)
            for name, dump in databases.dump(home, plan, secrets, Path(scratch)).items():
                report(f"database {name}: {dump.stat().st_size:,} bytes")
                writer.add(f"databases/{dump.name}", dump)
            count = writer.add_objects(_bucket(plan, secrets))
            report(f"bucket {_BUCKET}: {count:,} objects")
            return writer.finish(plan)


def restore(
    home: StackPaths, archive: Path, *, replace: bool = False, report: Report
) -> BackupIndex:
    """Bring databases, objects and secrets back into a stack that is down.

    The archive is verified before anything is changed. Databases, secrets and keys that are here
    are moved into ``before-restore-TIME``; objects are added, and those that differ are
    overwritten. In an empty folder a new stack is made, with ports of its own, so that it may run
    beside the one that was backed up. A restore that was interrupted has to be repeated before the
    stack starts.

    Args:
        replace: also if there are databases here, or another stack.

    Raises:
        UsageError: not an archive of ours, or damaged; the stack runs; or ``replace`` is needed.
        ServiceError: a server does not start or refuses the dump.
    """
    with _opened(archive) as tar, _undisturbed(home):
        index = _verified(tar, archive)
        _check_home(home, index, replace=replace)
        home.root.mkdir(parents=True, exist_ok=True)
        home.logs.mkdir(exist_ok=True, mode=0o700)
        home.restoring.touch()
        before = _plan(home)
        moved = _move_aside(home, index)
        if moved is not None:
            report(f"the databases that were here: {moved}")
        for name in index.sha256:
            if name == home.secrets.name or name.startswith("keys/"):
                (home.root / name).parent.mkdir(exist_ok=True, mode=0o700)
                write_private(home.root / name, _member(tar, name).read().decode().rstrip("\n"))
        project = before.project if before else Path()
        make_plan(home, project=project, database=index.database)
        with tempfile.TemporaryDirectory() as scratch, control.serving(home, _SERVERS):
            plan, secrets = load_plan(home)
            dumps = [
                _extracted(tar, name, Path(scratch))
                for name in index.sha256
                if name.startswith("databases/")
            ]
            databases.load(home, plan, secrets, dumps)
            report(f"databases: {', '.join(sorted(dump.stem for dump in dumps))}")
            store = _bucket(plan, secrets)
            count = sum(_put_back(tar, name, store) for name in index.sha256)
            report(f"objects that were missing or different: {count:,}")
        home.restoring.unlink()
    return index


@contextmanager
def _undisturbed(home: StackPaths) -> Iterator[None]:
    """No ``up`` or ``down`` meanwhile; SIGTERM ends the servers that were started, too."""
    with termination_as_exception(raise_after_s=1.0), held(home.lock, wait=True):
        yield


def _check_whole(home: StackPaths) -> None:
    plan, _ = load_plan(home)
    missing = databases.missing(home, plan.database)
    if home.restoring.exists():
        raise UsageError(f"a restore of {home.root} did not finish: repeat it")
    if missing:
        raise UsageError(f"{home.root}: {', '.join(missing)} is missing: nothing to back up")


def _bucket(plan: StackPlan, secrets: Secrets) -> S3Store:
    return S3Store.with_keys(
        _BUCKET, plan.url("s3"), access_key=secrets.s3_admin_key, secret_key=secrets.s3_admin_secret
    )


class _Writer:
    """Adds members and remembers their digests."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._sha256: dict[str, str] = {}

    def add(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            self._add(name, file)

    def add_objects(self, store: S3Store) -> int:
        count = 0
        for info in store.list():
            with tempfile.TemporaryFile() as file:
                try:
                    store.read_into(info.key, file)
                except ObjectMissing:
                    continue  # deleted since it was listed
                self._add(f"objects/{info.key}", file)
            count += 1
        return count

    def finish(self, plan: StackPlan) -> BackupIndex:
        index = BackupIndex(
            made_at=datetime.now(UTC),
            mirnet_version=__version__,
            stack_id=plan.stack_id,
            database=plan.database,
            sha256=dict(self._sha256),
        )
        self._add(_INDEX, io.BytesIO(index.model_dump_json(indent=2).encode()))
        return index

    def _add(self, name: str, file: IO[bytes]) -> None:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        self._sha256[name] = digest.hexdigest()
        file.seek(0)
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        self._tar.addfile(member, file)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    with ExitStack() as opened:
        try:
            tar = opened.enter_context(tarfile.open(archive))
        except (tarfile.TarError, OSError) as error:
            raise UsageError(f"{archive} is not a backup of a stack: {error}") from error
        yield tar


def _verified(tar: tarfile.TarFile, archive: Path) -> BackupIndex:
    try:
        members = tar.getmembers()
        index = BackupIndex.model_validate_json(_member(tar, _INDEX).read())
    except (tarfile.TarError, KeyError, ValidationError) as error:
        raise UsageError(f"{archive} is not a whole backup of a stack") from error
    names = [member.name for member in members if member.name != _INDEX and member.isreg()]
    wanted = {"secrets.json", *(f"databases/{name}" for name in databases.dumps(index.database))}
    strange = [name for name in names if not _MEMBER.fullmatch(name)]
    if sorted(names) != sorted(index.sha256) or strange or wanted - set(names):
        raise UsageError(f"{archive}: its members are not those of a backup")
    for name, expected in index.sha256.items():
        digest = hashlib.sha256()
        member = _member(tar, name)
        while chunk := member.read(_CHUNK):
            digest.update(chunk)
        if digest.hexdigest() != expected:
            raise UsageError(f"{archive}: {name} is damaged")
    return index


def _check_home(home: StackPaths, index: BackupIndex, *, replace: bool) -> None:
    if supervisor_runs(home):
        raise UsageError(f"the stack in {home.root} runs: `mirnet stack down` first")
    if replace or home.restoring.exists():
        return
    present = [str(path) for path in databases.present(home)]
    if present:
        raise UsageError(
            f"{home.root} has databases ({', '.join(present)}): --replace moves them aside"
        )
    if home.plan.exists() and not _same_stack(home, index):
        raise UsageError(f"{home.root} is another stack: --replace moves its secrets aside")


def _same_stack(home: StackPaths, index: BackupIndex) -> bool:
    plan = _plan(home)
    return plan is not None and plan.stack_id == index.stack_id


def _plan(home: StackPaths) -> StackPlan | None:
    """The plan whatever became of the secrets; none if there is none that can be read."""
    try:
        return StackPlan.model_validate_json(home.plan.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        return None


def _move_aside(home: StackPaths, index: BackupIndex) -> Path | None:
    present = databases.present(home)
    settings = [home.secrets, home.keys] + ([] if _same_stack(home, index) else [home.plan])
    present += [path.relative_to(home.root) for path in settings if path.exists()]
    if not present:
        return None
    aside = home.folder(f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    aside.mkdir(mode=0o711)  # PostgreSQL's account owns its folder
    for path in present:
        (aside / path).parent.mkdir(exist_ok=True, mode=0o700)
        (home.root / path).rename(aside / path)
    return aside


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _extracted(tar: tarfile.TarFile, name: str, folder: Path) -> Path:
    path = folder / PurePosixPath(name).name
    with path.open("wb") as file:
        shutil.copyfileobj(_member(tar, name), file)
    return path


def _put_back(tar: tarfile.TarFile, name: str, store: S3Store) -> bool:
    """Whether the member is an object that was missing or different."""
    folder, _, key = name.partition("/")
    if folder != "objects":
        return False
    data = _member(tar, name).read()
    if store.head(key) is not None and store.get(key).data == data:
        return False
    store.put(key, data)
    return True
