"""A planted secret, and where it must not be found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SECRET = "Zq7planted9Xw"
"""In no other text of the project; survives URL encoding."""

HOSTILE = "a\r\nERROR forged\x1b]0;owned\x07\x9b31m\u202egpj[bold red]<img src=x>.png"
"""A name with line breaks, terminal escapes (C0 and C1), bidirectional control, markup, HTML."""


def files_with(text: str, folders: Iterable[Path]) -> list[Path]:
    """Files below the folders whose bytes or whose name have the text: databases, logs, reports."""
    wanted = text.encode()
    return [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if text in path.name or (path.is_file() and wanted in path.read_bytes())
    ]


def controls(text: str) -> set[str]:
    """Characters that a terminal would act on."""
    return {c for c in text if not c.isprintable() and c != "\n"}
