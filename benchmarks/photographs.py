"""Photographs that a published model may be trained on, from the sources in ``photographs.csv``.

python -m benchmarks.photographs FOLDER [--at-least 40] [--git PREFIX]

Each row of the table names one file of a Debian package, a public git repository or an installed
Python package, with its SHA-256, author, licence and where the source states that licence. Needs
``apt-get`` and ``dpkg-deb``, ``git``, and the ``demo`` extra; a source that cannot be reached costs
its photographs and is named, the rest goes on. A second run fetches what is still missing.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from itertools import groupby
from pathlib import Path
from typing import Any

from mirnet.atomic import write_atomically
from mirnet.data.layout import IMAGE_SUFFIXES
from mirnet.errors import DataError
from mirnet.signing.files import digest_of

TABLE = Path(__file__).with_suffix(".csv")
LICENCES = frozenset({"public domain", "CC0-1.0", "CC-BY-2.0", "CC-BY-4.0"})
"""What may train a model that is published: no share-alike, no licence of a stock photo site."""
AT_LEAST = 40
GIT_PREFIX = "https://github.com"
TIMEOUT_S = 900


@dataclass(frozen=True)
class Photograph:
    """One row of the table."""

    name: str
    """File name in the folder."""
    kind: str
    """``deb``, ``git`` or ``wheel``."""
    source: str
    """Package, or ``owner/name`` of the repository."""
    version: str
    """Version of the package where the file was found, or the commit to fetch."""
    path: str
    """Inside the package or commit."""
    sha256: str
    author: str
    licence: str
    width: int
    height: int
    stated_in: str
    """Where in the source the licence of this file is stated."""


@dataclass(frozen=True)
class Assembled:
    present: tuple[Photograph, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of each photograph that is not there: the reason."""


class Unreachable(Exception):
    """A source, or one file of it, cannot be had here; says why in one line."""


Contents = Callable[[Photograph], bytes]
Open = Callable[[Photograph, Path], Contents]
"""A row of a source and a scratch folder -> a function that gives the bytes of each of its rows."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Assemble the folder and say what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at-least", type=int, default=AT_LEAST, metavar="N")
    parser.add_argument(
        "--git", default=GIT_PREFIX, metavar="PREFIX", help="URL, or folder of clones"
    )
    options = parser.parse_args(arguments)
    try:
        found = assemble(options.folder, at_least=options.at_least, sources=opened(options.git))
    except DataError as error:
        raise SystemExit(str(error)) from error
    print(f"{options.folder}: {described(found)}")


def read_table(path: Path = TABLE) -> tuple[Photograph, ...]:
    """The rows of the table, in its order.

    Raises:
        DataError: an unknown kind or licence, a name twice, or a name with a folder; names the row.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    photos = [_photograph(row) for row in rows]
    seen: set[str] = set()
    for photo in photos:
        if photo.licence not in LICENCES:
            raise DataError(f"{photo.name}: the licence {photo.licence!r} does not allow this use")
        if photo.kind not in ("deb", "git", "wheel"):
            raise DataError(f"{photo.name}: unknown kind of source {photo.kind!r}")
        if photo.name in seen or Path(photo.name).name != photo.name:
            raise DataError(f"{photo.name}: not a file name, or in the table twice")
        seen.add(photo.name)
    return tuple(photos)


def opened(git_prefix: str = GIT_PREFIX) -> dict[str, Open]:
    """How each kind of source is opened.

    Args:
        git_prefix: what stands before ``/owner/name`` in the address of a repository. A folder on
            this machine: the clones in it are read in place.
    """
    return {"deb": open_deb, "git": partial(open_git, git_prefix), "wheel": open_wheel}


def assemble(
    folder: Path,
    *,
    at_least: int = AT_LEAST,
    photos: Sequence[Photograph] | None = None,
    sources: Mapping[str, Open] | None = None,
) -> Assembled:
    """Bring the photographs into ``folder``; those that are there with the right digest stay.

    Raises:
        DataError: fewer than ``at_least`` in the end, with the reasons; or ``folder`` has an image
            that is not in the table, whose licence nobody knows.
    """
    photos = read_table() if photos is None else photos
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_strangers(folder, photos)
    missing: dict[str, str] = {}
    wanted = [photo for photo in photos if not _is_there(folder, photo)]
    by_source = sorted(wanted, key=_source)
    ways = opened() if sources is None else sources
    for (kind, *_), rows in groupby(by_source, key=_source):
        missing |= _fetch(folder, list(rows), ways[kind])
    found = Assembled(tuple(p for p in photos if p.name not in missing), missing)
    if len(found.present) < at_least:
        raise DataError(f"{folder}: {described(found)}\nat least {at_least} are needed")
    return found


def described(found: Assembled) -> str:
    """How many there are by licence, and one line per reason for what is missing."""
    total = len(found.present) + len(found.missing)
    counts = Counter(photo.licence for photo in found.present)
    by_licence = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    lines = [
        f"{len(found.present)} of {total} photographs" + (f" ({by_licence})" if counts else "")
    ]
    reasons = sorted(found.missing.items(), key=lambda item: item[1])
    for reason, items in groupby(reasons, key=lambda item: item[1]):
        lines.append(f"missing: {', '.join(name for name, _ in items)}: {reason}")
    return "\n".join(lines)


def credits_table(photos: Iterable[Photograph]) -> str:
    """Markdown table of author, licence, source and digest, as CC-BY asks of a model's card."""
    lines = [
        "| photograph | author | licence | source | SHA-256 |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {p.name} | {p.author} | {p.licence} | {p.source} {p.version[:12]}, `{p.path}` "
        f"| {p.sha256[:12]} |"
        for p in photos
    ]
    return "\n".join(lines) + "\n"


def open_deb(row: Photograph, scratch: Path) -> Contents:
    """Download and unpack a Debian package; of any version, since the digests decide."""
    _run(["apt-get", "download", row.source], scratch)
    packages = sorted(scratch.glob("*.deb"))
    if not packages:
        raise Unreachable(f"apt-get left no package {row.source}")
    _run(["dpkg-deb", "-x", str(packages[0]), str(scratch / "unpacked")], scratch)
    return lambda photo: _read(scratch / "unpacked" / photo.path)


def open_wheel(row: Photograph, _scratch: Path) -> Contents:
    """Read from an installed Python package."""
    try:
        installed = distribution(row.source)
    except PackageNotFoundError as error:
        raise Unreachable("not installed") from error
    return lambda photo: _read(Path(str(installed.locate_file(photo.path))))


def open_git(prefix: str, row: Photograph, scratch: Path) -> Contents:
    """Fetch one commit without its files, which follow one by one, or read a clone in place."""
    clone = Path(prefix, row.source)
    if clone.is_dir():
        return lambda photo: _show(clone, photo)
    git = ["git", "-C", str(scratch)]
    _run([*git, "init", "-q", "--bare"], scratch)
    _run([*git, "remote", "add", "origin", f"{prefix}/{row.source}"], scratch)
    for key, value in (("promisor", "true"), ("partialclonefilter", "blob:none")):
        _run([*git, "config", f"remote.origin.{key}", value], scratch)
    _run(
        [*git, "fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", row.version], scratch
    )
    return lambda photo: _show(scratch, photo)


def _photograph(row: Mapping[str, str]) -> Photograph:
    sizes = {name: int(row[name]) for name in ("width", "height")}
    return Photograph(**(dict[str, Any](row) | sizes))


def _fetch(folder: Path, rows: Sequence[Photograph], open_source: Open) -> dict[str, str]:
    """Write the photographs of one source; returns the reasons for those that it does not give."""
    missing = {}
    source = rows[0].source
    with tempfile.TemporaryDirectory(prefix="mirnet-photographs-") as scratch:
        try:
            contents = open_source(rows[0], Path(scratch))
        except Unreachable as error:
            return {photo.name: f"{source}: {error}" for photo in rows}
        for photo in rows:
            try:
                data = contents(photo)
            except Unreachable as error:
                missing[photo.name] = f"{source}: {error}"
                continue
            if hashlib.sha256(data).hexdigest() != photo.sha256:
                missing[photo.name] = f"{source}: its digest is not the table's"
                continue
            write_atomically(folder / photo.name, data)
    return missing


def _refuse_strangers(folder: Path, photos: Iterable[Photograph]) -> None:
    known = {photo.name for photo in photos}
    strangers = sorted(
        path.relative_to(folder).as_posix()
        for path in _files(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.relative_to(folder).as_posix() not in known
    )
    if strangers:
        raise DataError(f"{folder}: {strangers[0]} is not in the table: nobody knows its licence")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _is_there(folder: Path, photo: Photograph) -> bool:
    path = folder / photo.name
    return path.is_file() and digest_of(path) == photo.sha256


def _source(photo: Photograph) -> tuple[str, str, str]:
    return photo.kind, photo.source, photo.version


def _show(repository: Path, photo: Photograph) -> bytes:
    return _run(["git", "-C", str(repository), "show", f"{photo.version}:{photo.path}"], repository)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreachable(f"no file {path.name} in this version of the package") from error


def _run(command: Sequence[str], place: Path) -> bytes:
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}  # a private repository asks nobody
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, timeout=TIMEOUT_S, check=True
        )
    except FileNotFoundError as error:
        raise Unreachable(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{command[0]} gave no answer in {TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise Unreachable(f"{command[0]}: {said[-1] if said else error.returncode}") from error
    return done.stdout


if __name__ == "__main__":
    main()
