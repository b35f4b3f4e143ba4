"""The commands of README, tutorial, guides, how-tos and runbooks, executed in order.

Every block has a mark (tests/docs_walk.py); one that cannot run says why, on the page. Each page
goes on where the last one stopped, in a clean clone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from mirnet.stack.plan import StackPaths
from mirnet.storage.s3server import free_ports
from tests.cli import commands
from tests.docs_walk import ROOT, Block, Clone, blocks, pages, read_blocks
from tests.stack.conftest import open_to_postgres

TUTORIAL = (
    "docs/tutorial.md",
    "docs/guides/analyst.md",
    "docs/howto/rollback.md",
    "docs/guides/nightly.md",
    "docs/howto/own-pairs.md",
    "docs/howto/published-weights.md",
    "docs/howto/new-camera.md",
    "docs/howto/new-baseline.md",
)
STACK = (
    "docs/guides/mlops-team.md",
    "docs/guides/nightly.md",
    "docs/runbooks/credentials-expired.md",
    "docs/runbooks/disk-full.md",
    "docs/runbooks/gate-refused.md",
    "docs/runbooks/lost-node.md",
    "docs/runbooks/mlflow-down.md",
    "docs/runbooks/model-refused.md",
    "docs/runbooks/poisoned-bucket.md",
    "docs/runbooks/rollback.md",
    "docs/runbooks/stuck-run.md",
    "docs/runbooks/lost-databases.md",
    "docs/deploy.md",
)
IN_TUTORIAL = {"runs", "runs first"}
# what a reader's own machine does in minutes; Ray and the compiler have tests of their own
QUICK = {"MIRNET_RAY_ADDRESS": "in-process", "MIRNET_COMPILE": "false"}


def of_kind(page: str, *kinds: str) -> list[Block]:
    return [block for block in blocks(page) if block.kind in kinds]


@pytest.mark.parametrize("page", pages())
def test_every_block_has_a_mark(page: str) -> None:
    for block in blocks(page):
        assert block.kind, f"{page}:{block.line}: a block without a mark"
        assert block.kind != "not run" or len(block.reason.split()) > 2, block


def typed(text: str) -> list[list[str]]:
    """The words after ``mirnet`` of each command of a block that a shell would take as they are."""
    lines = text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        line = re.sub(r"\$\([^)]*\)", "VALUE", line)
        command = re.split(r"\||&&|;|>|<|\s#", line.strip())[0].removesuffix("&")
        if command.startswith("mirnet ") and "..." not in command:
            found.append(shlex.split(command)[1:])
    return found


@pytest.mark.parametrize(
    "page",
    [p.relative_to(ROOT).as_posix() for p in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))],
)
def test_the_commands_of_a_page_have_the_arguments_that_they_take(page: str) -> None:
    """Of indented blocks, too, which no walk follows."""
    leaves = dict(commands.leaves())
    text = (ROOT / page).read_text(encoding="utf-8")
    indented = "\n".join(re.findall(r"^ {4}(mirnet .*)$", text, re.M))
    for words in typed("\n".join([*(b.commands for b in read_blocks(page, text)), indented])):
        path = next((p for p in (tuple(words[:2]), tuple(words[:1])) if p in leaves), None)
        if path is None:
            assert words[0].startswith("-"), f"{page}: mirnet {shlex.join(words)}: no such command"
            continue
        try:
            leaves[path].make_context("mirnet", words[len(path) :])
        except typer.TyperException as error:
            pytest.fail(f"{page}: mirnet {shlex.join(words)}: {error.format_message()}")
        except typer.Exit:
            continue  # --help


def test_a_block_without_a_mark_is_found() -> None:
    text = "<!-- runs -->\n```\na\n```\n\n```\nb\n```\n<!-- not run: because -->\n```\nc\n```\n"
    found = read_blocks("page", text)
    assert [block.kind for block in found] == ["runs", "", "not run"]
    assert read_blocks("page", "<!-- run -->\n```\na\n```\n")[0].kind == ""
    assert read_blocks("page", "  <!-- runs: 3 -->\n  ```\n  a\n  ```\n")[0].code == 3


def test_the_walks_have_every_page_with_commands_to_run() -> None:
    tutorial = {page for page in pages() if of_kind(page, *IN_TUTORIAL)}
    stack = {page for page in pages() if of_kind(page, "runs in stack")}
    assert tutorial == set(TUTORIAL)
    assert stack == set(STACK)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    clone = Clone(tmp_path_factory.mktemp("tutorial"), **QUICK)
    yield clone
    clone.end()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    clone = Clone(tmp_path_factory.mktemp("team"))
    open_to_postgres(StackPaths(clone.folder))
    yield clone
    clone.run("cd .; .venv/bin/python -m mirnet.cli stack down --purge")
    clone.end()


@pytest.mark.slow
def test_the_first_commands_work(tmp_path: Path) -> None:
    """The short form, for the CI."""
    clone = Clone(tmp_path, **QUICK)
    for page in pages():
        for block in of_kind(page, "runs first"):
            clone.follow(block)
    clone.end()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", TUTORIAL)
def test_the_commands_of_a_page_work(page: str, tutorial: Clone) -> None:
    for block in of_kind(page, *IN_TUTORIAL):
        tutorial.follow(block)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", STACK)
def test_the_commands_of_a_page_work_on_a_stack(page: str, team: Clone) -> None:
    if page != STACK[0]:  # that one starts it, and stops it at its end
        code, output = team.run('mirnet stack up\neval "$(mirnet stack env)"')
        assert code == 0, output[-3000:]
    for block in of_kind(page, "runs in stack"):
        team.follow(block)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_work_on_a_server_of_ones_own(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    clone = Clone(tmp_path, PREFECT_API_URL=f"{address}/api")
    try:
        code, output = clone.run(
            f". .venv/bin/activate\nprefect server start --port {port} &\n"
            f"for _ in $(seq 120); do curl -sf {address}/api/health && break; sleep 1; done"
        )
        assert code == 0, output[-3000:]
        for block in of_kind("docs/deploy.md", "runs on own server"):
            clone.follow(block)
    finally:
        clone.end()
