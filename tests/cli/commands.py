"""The commands of the app, for tests that go through all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from mirnet.cli import app, main


def nodes(command: Any = None, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group with its words after ``mirnet``."""
    command = typer.main.get_command(app) if command is None else command
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from nodes(child, *path, name)


def leaves() -> list[tuple[tuple[str, ...], Any]]:
    """Those that do something."""
    return [(path, command) for path, command in nodes() if not hasattr(command, "commands")]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run ``mirnet``; its exit code."""
    monkeypatch.setattr(sys, "argv", ["mirnet", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def parsed(text: str) -> Any:
    """One document of strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
