"""The version of a data set: DVC's digest of its folder, compared with the pinned one.

The only module that imports DVC; of S3 only the base class of errors that DVC lets through.
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
from botocore.exceptions import BotoCoreError
from dvc.exceptions import CheckoutError, DvcException, FileTransferError, NotDvcRepoError
from dvc.ignore import DvcIgnoreFilter
from dvc.repo import Repo
from dvc.scm import SCM, NoSCM, SCMError
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.tree import Tree
from dvc_objects.fs.local import LocalFileSystem
from dvc_objects.fs.memory import MemoryFileSystem
from scmrepo.exceptions import SCMError as ScmrepoError

from mirnet.config import engine_variable, name_variables, refuse_credentials
from mirnet.data import listing
from mirnet.data.dvc_failures import DvcFailures
from mirnet.errors import DataError, StorageError
from mirnet.full_disk import disk_full
from mirnet.redaction import redacted
from mirnet.results import DataVersion

log = logging.getLogger(__name__)

_GIVEN = "given"
"""Name of a temporary remote for one command."""


@dataclass(frozen=True)
class TrackedFile:
    """One file of a data set in DVC's listing."""

    path: str
    """Relative to the folder, with forward slashes."""
    md5: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class RemoteFile(TrackedFile):
    """A file and its content address on a remote, which never changes."""

    url: str


@dataclass(frozen=True)
class Snapshot:
    """Present content of a folder."""

    root: Path
    digest: str
    files: tuple[TrackedFile, ...]

    @cached_property
    def md5(self) -> dict[str, str]:
        """Content hash by relative path."""
        return {file.path: file.md5 for file in self.files}

    @property
    def size(self) -> int:
        """Total bytes."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Pin:
    """Content of a ``.dvc`` file."""

    path: Path
    digest: str
    num_files: int | None
    size: int | None
    hash_name: str | None = "md5"


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
        DataError: the file exists but is not a valid ``.dvc`` file of a folder.
    """
    path = _pin_path(root)
    if not path.is_file():
        return None
    try:
        (out,) = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"]
        # the digest becomes a path in caches and on remotes
        if not listing.FOLDER_DIGEST.fullmatch(out["md5"]):
            raise ValueError("md5")
        return Pin(path, out["md5"], out.get("nfiles"), out.get("size"), out.get("hash"))
    except (yaml.YAMLError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a .dvc file of one folder; write it with dvc add") from error


def data_version(root: Path, *, snapshot: Snapshot | None = None) -> DataVersion:
    """The version of ``root``, and whether it is the pinned one. Writes nothing.

    Raises:
        DataError: no such folder, nothing in it, or a broken ``.dvc`` file.
    """
    now = snapshot or take_snapshot(root)
    pin = read_pin(root)
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
    """``dvc add``: pin the present content of the folder.

    Raises:
        DataError: the folder is not in a DVC workspace, or DVC refuses; says why.
        DiskFull: the cache has no room.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    with DvcFailures() as failures, open_repo(root) as repo:
        try:
            repo.add(str(root.resolve()))
        except (FileTransferError, CheckoutError, OSError) as error:
            if full := disk_full(failures.first or error):
                raise full from error
            raise DataError(f"{root}: {next(iter(failures.messages), error)}") from error
    return data_version(root)


def init_workspace(path: Path) -> None:
    """Make a folder a separate DVC workspace, without git, unless it is one.

    Raises:
        DataError: DVC cannot start one there.
    """
    if (path / Repo.DVC_DIR).is_dir():
        return
    path.mkdir(parents=True, exist_ok=True)
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        Repo.init(str(path), no_scm=True).close()
    except DvcException as error:
        raise DataError(f"{path}: {error}") from error


def remember(snapshot: Snapshot) -> None:
    """Store the listing of this version in DVC's cache, so that later changes can be named.

    Raises:
        DataError: no DVC workspace around the folder.
    """
    entries = [{"md5": file.md5, "relpath": file.path} for file in snapshot.files]
    tree = Tree.from_list(entries, hash_name="md5")
    tree.digest()
    with open_repo(snapshot.root) as repo:
        listing.discard_damaged(repo.cache.local, [snapshot.digest])
        repo.cache.local.add(tree.path, tree.fs, tree.oid)


def push(root: Path, *, remote: str | None = None, endpoint_url: str | None = None) -> int:
    """Upload the pinned version to a remote; returns the number of files sent.

    Args:
        root: Folder of the data set.
        remote: Name of a DVC remote or a URL such as ``s3://bucket/prefix``; none: the default.
        endpoint_url: S3 server of a URL, other than AWS.

    Raises:
        DataError: the folder differs from its pinned version, or no remote is configured.
        ServiceError: the remote cannot be reached or refuses; names it.
    """
    if data_version(root).status != "clean":
        raise DataError(f"{root}: is not the pinned version; `dvc add {root}` pins what it holds")
    pin = _movable_pin(root)
    with _open_remote(root, remote, endpoint_url) as (repo, name):
        repo.commit(str(pin.path), force=True)
        sent = int(repo.push(targets=[str(pin.path)], remote=name))
        # existing objects are not sent again, whatever their content is
        store = repo.cloud.get_remote_odb(name, "push")
        content, place = listing.read_remote_listing(store, pin.digest)
    listing.parse_listing(content, pin.digest, place=f"{place}: delete it and push again, it")
    return sent


def pull(
    root: Path, *, remote: str | None = None, endpoint_url: str | None = None, force: bool = False
) -> int:
    """Download the pinned version; returns the number of files. Arguments as in :func:`push`.

    The listing and every object are verified before anything is written into the folder.

    Raises:
        DataError: no pin, local changes that would be lost (unless ``force``), no remote; the
            contents of remote or cache do not match the pin, or names lead outside.
        ServiceError: the remote cannot be reached, refuses, or lacks files; names it.
    """
    pin = _movable_pin(root)
    if not force and root.is_dir() and any(root.iterdir()):
        version = data_version(root)
        if version.status == "modified":
            raise DataError(f"{root}: differs from its pin; --force replaces what it holds")
    targets = [str(pin.path)]
    with _open_remote(root, remote, endpoint_url) as (repo, name):
        repo.cloud.get_remote(name, "pull")  # raises if there is none
        store, cache = repo.cloud.get_remote_odb(name, "pull"), repo.cache.local
        repo.drop_data_index()  # may have listings that were never verified
        listed, received = listing.fetch_listing(cache, store, pin.digest)
        listing.refuse_links(root, listed)
        listing.discard_damaged(cache, listing.digests(listed))
        fetched = int(repo.fetch(targets, remote=name))
        listing.verify_objects(root, cache, store, listed)
        repo.checkout(targets=targets, force=force)
    return fetched + received


def list_remote_files(
    root: Path, *, remote: str | None = None, endpoint_url: str | None = None
) -> list[RemoteFile]:
    """Addresses of the files of the data set on a remote. No request; arguments as in :func:`push`.

    Raises:
        DataError: no such folder, or no remote is configured.
    """
    snapshot = take_snapshot(root)
    with _open_remote(root, remote, endpoint_url) as (repo, name):
        store = repo.cloud.get_remote_odb(name, "files")
        urls = (store.fs.unstrip_protocol(store.oid_to_path(f.md5)) for f in snapshot.files)
        return [
            RemoteFile(file.path, file.md5, file.size, redacted(url))
            for file, url in zip(snapshot.files, urls, strict=True)
        ]


@contextmanager
def open_repo(root: Path, **options: Any) -> Iterator[Any]:
    """The DVC workspace around a data folder; DVC's errors become ours.

    Raises:
        DataError: no workspace around it, or DVC refuses.
    """
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo(Repo.find_root(str(root.resolve().parent)), **options) as repo:
            yield repo
    except NotDvcRepoError as error:
        raise DataError(f"{root}: in no DVC workspace; run dvc init above it") from error
    except (FileTransferError, CheckoutError):
        raise  # a failure of the remote
    except DvcException as error:
        raise DataError(f"{root}: {error}") from error


@contextmanager
def _open_remote(
    root: Path, remote: str | None, endpoint_url: str | None
) -> Iterator[tuple[Any, str | None]]:
    refuse_credentials(remote)
    options: dict[str, Any] = {}
    if remote and "://" in remote:
        place = {"url": remote}
        if endpoint_url and remote.startswith("s3://"):
            place["endpointurl"] = endpoint_url
        options["config"] = {"remote": {_GIVEN: place}}
    with DvcFailures() as failures:
        try:
            with open_repo(root, **options) as repo:
                yield repo, _GIVEN if options else remote
        except (FileTransferError, CheckoutError, BotoCoreError, OSError) as error:
            where = f"remote {remote}" if remote else "the default remote"
            why = "; ".join(dict.fromkeys(failures.messages)) or str(error).splitlines()[0]
            raise StorageError(f"{root}: {where}: {name_variables(why)}") from error


def git_commit(folder: Path) -> str | None:
    """The commit of our image if this runs in it, else that of the repository of ``folder``;
    none outside both or without commits."""
    if baked := engine_variable("IMAGE_COMMIT"):
        return baked
    try:
        scm = SCM(str(folder), search_parent_directories=True)
    except SCMError:
        return None
    if isinstance(scm, NoSCM):
        return None
    try:
        return str(scm.get_rev())
    except ScmrepoError:
        return None  # no commit yet
    finally:
        scm.close()


def _movable_pin(root: Path) -> Pin:
    pin = read_pin(root)
    if pin is None:
        raise DataError(f"{_pin_path(root)} is missing: there is nothing to pull")
    if pin.hash_name != "md5":
        # DVC 2 has digests of converted bytes
        raise DataError(f"{pin.path}: written by DVC 2; run `dvc cache migrate --dvc-files`")
    return pin


def _pin_path(root: Path) -> Path:
    folder = root.resolve()
    return folder.parent / f"{folder.name}.dvc"


def _ignore(folder: Path) -> Any:
    """The effective .dvcignore: that of the workspace, else only DVC's own rules."""
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
    """Names and hashes of the pinned version, if the local cache has its listing."""
    try:
        with open_repo(pin.path) as repo:
            kept = Path(repo.cache.local.oid_to_path(pin.digest))
        listed = listing.parse_listing(kept.read_bytes(), pin.digest, place=str(kept))
    except (FileNotFoundError, DataError) as error:
        log.info("%s: no list of the pinned files in the cache: %s", pin.path, error)
        return None
    return {one.path: one.md5 for one in listed}
