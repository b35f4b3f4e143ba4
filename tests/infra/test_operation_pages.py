"""The pages name commands, files, metrics and events that exist."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mirnet.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_CODE = re.compile(r"```\w*\n(.*?)```|`([^`]+)`", re.S)


def commands(page: Path, program: str) -> list[list[str]]:
    """Every line of code that calls the program, as words."""
    lines = []
    for block, inline in _CODE.findall(page.read_text(encoding="utf-8")):
        lines += block.splitlines() if block else [" ".join(inline.split())]
    found = [
        re.sub(r'^eval "\$\((.*)\)"$', r"\1", line.partition("#")[0].strip()) for line in lines
    ]
    return [
        words[1:]
        for line in found
        if line.startswith(f"{program} ") and (words := shlex.split(line))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_mirnet_commands_and_their_options_exist(page: Path) -> None:
    root = typer.main.get_command(app)
    for words in commands(page, "mirnet"):
        command: Any = root
        rest = list(words)
        while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
            command = command.commands.get(rest.pop(0))
            assert command is not None, f"mirnet {' '.join(words)}"
        options = {option for parameter in command.params for option in parameter.opts}
        used = {word for word in rest if word.startswith("--")}
        assert used <= {*options, "--help"}, f"mirnet {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_targets_modules_and_files_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(page, "make"):
        assert re.search(rf"^{words[0]}:", makefile, re.M), words
    for words in commands(page, "python"):
        if words[0] == "-m":
            assert find_spec(words[1]) is not None or words[1] == "flows.NAME", words
        else:
            assert (ROOT / words[0]).is_file(), words
    for path in re.findall(r"(?<![\w/])infra/[\w./-]+", page.read_text(encoding="utf-8")):
        # tests are named relative to tests/
        base = ROOT / "tests" if path.startswith("infra/test_") else ROOT
        if path != "infra/.env":
            assert (base / path.rstrip(".")).exists(), path


def test_there_are_commands_to_check() -> None:
    assert sum(len(commands(page, "mirnet")) for page in PAGES) > 25


def test_runbooks_that_the_doctor_names_exist() -> None:
    text = (ROOT / "mirnet/doctor.py").read_text(encoding="utf-8")
    named = set(re.findall(r"runbooks/([\w-]+)\.md", text))
    assert len(named) >= 4
    assert named <= {page.stem for page in PAGES}


def test_the_dashboard_and_the_page_know_the_metrics_of_the_flow() -> None:
    source = (ROOT / "flows/prometheus.py").read_text(encoding="utf-8")
    metrics = set(re.findall(r'"(mirnet_\w+)"', source))
    dashboard = json.loads((ROOT / "infra/grafana/mirnet.json").read_text(encoding="utf-8"))
    asked = {m for p in dashboard["panels"] for m in re.findall(r"mirnet_\w+", str(p["targets"]))}
    assert asked == metrics
    page = (ROOT / "docs/watching.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(mirnet_\w+)`", page)) == metrics


def test_the_page_knows_all_events() -> None:
    source = (ROOT / "flows/events.py").read_text(encoding="utf-8")
    emitted = set(re.findall(r'"(mirnet\.\w+\.\w+)"', source))
    page = (ROOT / "docs/watching.md").read_text(encoding="utf-8")
    assert emitted == set(re.findall(r"`(mirnet\.\w+\.\w+)`", page))
