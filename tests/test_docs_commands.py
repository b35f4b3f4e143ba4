"""The commands of the pages, executed: blocks under ``<!-- runs -->``, page after page, one folder.

``<!-- runs: 3 -->`` says that the last command ends with exit code 3. Other blocks need a server or
a cluster: tests/infra/test_operation_pages.py holds their commands and options, and tests/stack
goes through a running stack.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# each goes on where the last one stopped
TOUR = (
    "tutorial.md",
    "guides/analyst.md",
    "howto/rollback.md",
    "guides/nightly.md",
    "howto/own-pairs.md",
    "howto/published-weights.md",
    "howto/new-camera.md",
    "howto/new-baseline.md",
)
_BLOCK = re.compile(r"<!-- runs(?:: (\d+))? -->\n```\n(.*?)```", re.S)


def blocks(page: str) -> list[tuple[str, int]]:
    """Commands and the exit code of the last one."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [(commands, int(code or 0)) for code, commands in _BLOCK.findall(text)]


def test_the_tour_has_every_page_with_commands_to_run() -> None:
    marked = {
        path.relative_to(ROOT / "docs").as_posix()
        for path in ROOT.glob("docs/**/*.md")
        if "<!-- runs" in path.read_text(encoding="utf-8")
    }
    assert marked == set(TOUR)
    for page in TOUR:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert len(blocks(page)) == text.count("<!-- runs"), f"{page}: a mark without a block"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", TOUR)
def test_the_commands_of_a_page_work(page: str, folder: Path) -> None:
    # without the keys of the tests: the pages make their own
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MIRNET_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / ".prefect"),
        # what a reader's own machine does in minutes; Ray and the compiler have tests of their own
        "MIRNET_RAY_ADDRESS": "in-process",
        "MIRNET_COMPILE": "false",
    }
    for commands, code in blocks(page):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, commands + done.stdout[-3000:] + done.stderr[-3000:]
