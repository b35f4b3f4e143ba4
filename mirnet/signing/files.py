"""Digests of all files of a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mirnet.errors import WeightsError


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder by its relative name, in the order of the names.

    Raises:
        WeightsError: the folder is missing, or holds a link, pipe or device; names it.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise WeightsError(f"{path}: only plain files and folders belong to a model")
        for name in names:
            path = Path(root, name)
            found[path.relative_to(folder).as_posix()] = digest_of(path)
    return {name: found[name] for name in sorted(found, key=PurePosixPath)}


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def below(files: Mapping[str, str], folder: str) -> dict[str, str]:
    """The entries of one folder, by their names in it."""
    prefix = f"{folder}/"
    return {n.removeprefix(prefix): d for n, d in files.items() if n.startswith(prefix)}


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is missing, was added or has changed, one line per file; empty: all the same."""
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} was added" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has changed"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    return sorted(problems)
