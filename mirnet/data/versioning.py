"""The version of a data set: DVC's digest of its folder, and the pin that it is compared with.

The only module that knows DVC.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.ignore import DvcIgnoreFilter
from dvc.repo import Repo
from dvc.scm import SCM, NoSCM, SCMError
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.fs.local import LocalFileSystem
from dvc_objects.fs.memory import MemoryFileSystem

from mirnet.errors import DataError
from mirnet.results import DataVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedFile:
    """One file of a data set as DVC sees it."""

    path: str
    """Relative to the folder, with forward slashes."""
    md5: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Snapshot:
    """What is in a folder now."""

    root: Path
    digest: str
    files: tuple[TrackedFile, ...]

    @cached_property
    def md5(self) -> dict[str, str]:
        """Content hash by relative path."""
        return {file.path: file.md5 for file in self.files}

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Pin:
    """What a ``.dvc`` file says."""

    path: Path
    digest: str
    num_files: int | None
    size: int | None


def take_snapshot(root: Path) -> Snapshot:
    """Hash a folder exactly as ``dvc add`` would, without writing anything.

    Raises:
        DataError: no such folder, or nothing in it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folder = root.resolve()
    local: Any = LocalFileSystem
    memory: Any = MemoryFileSystem
    # a store in memory: dry_run keeps only names and hashes
    store = HashFileDB(memory(), f"/mirnet{folder}")
    try:
        _, meta, built = build(
            store, str(folder), local(), "md5", dry_run=True, ignore=_ignore(folder)
        )
    except DvcException as error:
        raise DataError(f"{root}: {error}") from error
    if not meta.nfiles:
        raise DataError(f"{root}: no files in it")
    tree = cast("Tree", built)
    files = [TrackedFile("/".join(key), hashed.value, size.size) for key, size, hashed in tree]
    files.sort(key=lambda file: file.path)
    return Snapshot(root, str(tree.oid), tuple(files))


def read_pin(root: Path) -> Pin | None:
    """The ``.dvc`` file beside a folder; none if there is none.

    Raises:
        DataError: the file is there and is not what DVC writes for a folder.
    """
    path = root.parent / f"{root.name}.dvc"
    if not path.is_file():
        return None
    try:
        out = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"][0]
        return Pin(path, out["md5"], out.get("nfiles"), out.get("size"))
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: not a .dvc file of one folder; write it with dvc add") from error


def data_version(root: Path, *, snapshot: Snapshot | None = None) -> DataVersion:
    """Which bytes ``root`` holds, and whether they are the pinned ones. Writes nothing.

    Raises:
        DataError: no such folder, nothing in it, or a broken ``.dvc`` file.
    """
    now = snapshot or take_snapshot(root)
    pin = read_pin(root.resolve())
    status: Literal["clean", "modified", "untracked"] = "untracked"
    if pin is not None:
        status = "clean" if pin.digest == now.digest else "modified"
    return DataVersion(
        path=str(root),
        digest=now.digest,
        num_files=len(now.files),
        size=now.size,
        status=status,
        changed=_changed_files(now, pin) if pin and status == "modified" else (),
        git_commit=git_commit(Path.cwd()),
    )


def add(root: Path) -> DataVersion:
    """``dvc add``: pin what the folder holds now.

    Raises:
        DataError: the folder is in no DVC workspace, or DVC refuses; says why.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    with open_repo(root) as repo:
        repo.add(str(root.resolve()))
    return data_version(root)


def init_workspace(path: Path) -> None:
    """Make a folder a DVC workspace of its own, without git; nothing to do if it is one.

    Raises:
        DataError: DVC cannot start one there.
    """
    if (path / Repo.DVC_DIR).is_dir():
        return
    path.mkdir(parents=True, exist_ok=True)
    try:
        Repo.init(str(path), no_scm=True).close()
    except DvcException as error:
        raise DataError(f"{path}: {error}") from error


@contextmanager
def open_repo(root: Path) -> Iterator[Any]:
    """The DVC workspace around a data folder; DVC's errors become ours.

    Raises:
        DataError: no workspace around it, or DVC refuses.
    """
    try:
        with Repo(Repo.find_root(str(root.resolve().parent))) as repo:
            yield repo
    except NotDvcRepoError as error:
        raise DataError(f"{root}: in no DVC workspace; run dvc init above it") from error
    except DvcException as error:
        raise DataError(f"{root}: {error}") from error


def git_commit(folder: Path) -> str | None:
    """The commit checked out around ``folder``; none outside git or before the first."""
    try:
        scm = SCM(str(folder), search_parent_directories=True)
    except SCMError:
        return None
    if isinstance(scm, NoSCM):
        return None
    try:
        return str(scm.get_rev())
    except SCMError:
        return None
    finally:
        scm.close()


def _ignore(folder: Path) -> Any:
    """The .dvcignore in force: that of the workspace, else only DVC's own rules."""
    try:
        root = Repo.find_root(str(folder.parent))
    except NotDvcRepoError:
        root = str(folder.parent)
    local: Any = LocalFileSystem
    return DvcIgnoreFilter(local(), root)


def _changed_files(now: Snapshot, pin: Pin) -> tuple[str, ...]:
    pinned = _pinned_files(pin)
    if pinned is None:
        return ()
    paths = now.md5.keys() | pinned.keys()
    return tuple(sorted(p for p in paths if now.md5.get(p) != pinned.get(p)))


def _pinned_files(pin: Pin) -> dict[str, str] | None:
    """Names and hashes of the pinned version, if DVC's cache here has its listing."""
    try:
        with open_repo(pin.path) as repo:
            tree = Tree.load(repo.cache.local, HashInfo("md5", pin.digest))
    except (FileNotFoundError, DataError):
        log.info("%s: the list of the pinned files is not in the cache", pin.path)
        return None
    return {"/".join(key): info.value for key, _, info in tree}
