"""Provenance metadata on every output: available after a crash before the manifest is written,
and years later.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import quote, unquote

from mirnet.batch.ledger import FOLDER, Ledger
from mirnet.batch.manifest import Row, parse_strings
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.storage.places import is_s3, local_path, open_store
from mirnet.storage.store import Store

_PREFIX = "mirnet-"
_KEY_HEADER = f"{_PREFIX}input-key"
_NOT_CARRIED = {
    *("input_size", "output_key", "seconds", "dropped"),
    *("output_size", "output_version"),  # the store knows them
}
_KINDS: dict[str, Callable[[str], str]] = {"int": str, "float": str}
_CARRIED = [
    (
        each.name,
        _PREFIX + each.name.replace("_", "-"),
        _KINDS.get(str(each.type).split()[0], unquote),
    )
    for each in fields(Row)
    if each.name not in _NOT_CARRIED
]
# S3 allows 2 KiB of metadata in total
_MAX_KEY = 800


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of an object. ``row`` is without what its metadata do not carry: size of the input,
    key, size and version of the output, seconds and ``dropped``.

    ``source``: source of the run, if its records still exist.
    """

    row: Row
    source: str | None = None

    @property
    def input_address(self) -> str:
        """The full name of the input, or its key if the source is unknown."""
        source, key = self.source, self.row.input_key
        if source is None or source == key or source.endswith(f"/{key}"):
            return source or key  # a run over one image
        return f"{source.rstrip('/')}/{key}"

    def is_of(self, input_key: str, source_digest: str) -> bool:
        """Whether that input was its source; True for old outputs, which do not record it."""
        same_place = self.row.source_digest in (None, source_digest)
        return same_place and self.row.input_key == unquote(_carried_key(input_key))


def source_digest(source: Store) -> str:
    """Digest of a source, to distinguish inputs of the same key."""
    return hashlib.sha256(source.uri.encode()).hexdigest()[:16]


# most of a run's facts are the same for all of its images
_quoted = functools.lru_cache(maxsize=1024)(quote)


def to_metadata(row: Row) -> dict[str, str]:
    """A row as object metadata: ASCII, at most about 1.7 KiB."""
    metadata = {
        header: _quoted(str(value))
        for name, header, _ in _CARRIED
        if (value := getattr(row, name)) is not None
    }
    metadata[_KEY_HEADER] = quote(unquote(_carried_key(row.input_key)))
    return metadata


def from_metadata(metadata: Mapping[str, str]) -> Origin | None:
    """The row written by :func:`to_metadata`; none if there is none, or it is damaged."""
    values = {name: kind(metadata[header]) for name, header, kind in _CARRIED if header in metadata}
    try:
        return Origin(parse_strings({"input_size": "0"} | values))
    except ValueError:  # whoever can write to the target can write anything into its metadata
        return None


def trace(uri: str, settings: Settings) -> Origin:
    """The provenance of an output or a quarantined copy.

    Raises:
        StorageError: no such object, or it has no metadata of MIRNet.
    """
    store, key = _locate(uri, settings)
    head = store.head(key)
    if head is None:
        raise StorageError(f"{uri}: no such object", transient=False)
    origin = from_metadata(head.metadata)
    if origin is None:
        raise StorageError(
            f"{uri}: no record of MIRNet on it: not an output, or changed or damaged since",
            transient=False,
        )
    return replace(origin, source=_source_of(origin.row.run_id, uri, settings))


def _source_of(run_id: str, uri: str, settings: Settings) -> str | None:
    """From the records of the run, in one of the parent folders."""
    name = uri if is_s3(uri) else str(_named(uri))
    folders = [single_records(uri, settings)]
    parts = name.split("/")
    first = 3 if is_s3(uri) else 1
    folders += ["/".join([*parts[:n], FOLDER]) for n in range(len(parts) - 1, first - 1, -1)]
    for folder in folders:
        if not is_s3(folder) and not Path(folder).is_dir():
            continue
        source = Ledger(open_store(folder, settings)).run(run_id).read_source()
        if source is not None:
            return source
    return None


def single_records(target: str, settings: Settings) -> str:
    """Folder of the records if one image is enhanced to one file."""
    name = target if is_s3(target) else str(_named(target))
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return str(settings.workspace / "enhance" / digest)


def _named(target: str) -> Path:
    """The canonical path of a file; a link as last part is not resolved."""
    path = Path(target).expanduser().absolute()
    return local_path(str(path.parent)) / path.name


def _locate(uri: str, settings: Settings) -> tuple[Store, str]:
    if is_s3(uri):
        parent, _, name = uri.rpartition("/")
        return open_store(parent, settings), name
    path = _named(uri)
    for folder in path.parents:
        if (folder / FOLDER).is_dir():
            return open_store(str(folder), settings), path.relative_to(folder).as_posix()
    own = single_records(uri, settings)
    return open_store(str(path.parent), settings, bookkeeping=own), path.name


def _carried_key(key: str) -> str:
    quoted = quote(key)
    if len(quoted) <= _MAX_KEY:
        return quoted
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
