"""Whether a file or folder can be written, asked before the work whose result goes there."""

from __future__ import annotations

import os
from pathlib import Path

from mirnet.errors import UsageError


def check_file_target(path: Path) -> Path:
    """A file to be written or replaced; its missing folders are made by whoever writes it.

    Raises:
        UsageError: it is a folder, or no file can be made there; names what is in the way.
    """
    if _is_folder(path):
        raise UsageError(f"{path} is a folder: name a file")
    _check_parent(path, path.parent)
    return path


def check_folder_target(path: Path) -> Path:
    """A folder to be made or filled.

    Raises:
        UsageError: it is a file, or no folder can be made there; names what is in the way.
    """
    if os.path.lexists(path) and not _is_folder(path):
        raise UsageError(f"{path} is a file: name a folder")
    _check_parent(path, path)
    return path


def _check_parent(path: Path, folder: Path) -> None:
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not _is_folder(folder):
        raise UsageError(f"{path}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: no permission to write in {folder}")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # below a folder that may not be searched, or too long
        return False
