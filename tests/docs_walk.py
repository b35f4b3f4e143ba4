"""Command blocks of the pages, their marks, and a shell that follows them.

The mark is the comment in the line above a block:

- ``runs``: in the folder of the tutorial, page after page; ``runs first``: likewise, and in the
  short form that the CI runs.
- ``runs in stack``: in a clean clone with a stack; ``runs on own server``: with a Prefect server.
- ``: 3`` after one of these: the last command ends with this exit code.
- ``not run: REASON``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.S | re.M,
)
_MARK = re.compile(r"(runs|runs first|runs in stack|runs on own server)(?:: (\d+))?|not run: (.+)")
_OUTSIDE = ("MIRNET_", "AWS_", "PREFECT_", "MLFLOW_", "RAY_")


@dataclass(frozen=True)
class Block:
    """Commands of a page. ``kind`` is the mark without its exit code, empty for none."""

    page: str
    line: int
    commands: str
    kind: str
    code: int = 0
    reason: str = ""


def pages() -> list[str]:
    """Every page that says what to type, relative to the project."""
    folders = ("guides", "howto", "runbooks")
    found = [path for name in folders for path in sorted((ROOT / "docs" / name).glob("*.md"))]
    named = [
        ROOT / "README.md",
        *(ROOT / "docs" / f"{name}.md" for name in ("tutorial", "batch", "deploy")),
    ]
    return [path.relative_to(ROOT).as_posix() for path in (*named, *found)]


def blocks(page: str) -> list[Block]:
    """All blocks of a page in order, with their marks."""
    return read_blocks(page, (ROOT / page).read_text(encoding="utf-8"))


def read_blocks(page: str, text: str) -> list[Block]:
    """See :func:`blocks`."""
    found = []
    for match in _BLOCK.finditer(text):
        mark = _MARK.fullmatch(match["mark"] or "")
        kind, code, reason = mark.groups() if mark else ("", None, None)
        line = text.count("\n", 0, match.start("text"))
        kind = "not run" if reason else kind
        found.append(Block(page, line, match["text"], kind, int(code or 0), reason or ""))
    return found


class Clone:
    """A clean clone of this checkout in which the environment is already made."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder / "mirnet-pipeline"
        self._state = folder / "shell"
        self._log = folder / "output"
        self._sessions: list[int] = []
        _clone(self.folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OUTSIDE)}
        self._env = kept | variables
        self._env |= {
            # the code of the clone, not that of the checkout which the environment points at
            "PYTHONPATH": str(self.folder),
            "PREFECT_HOME": str(folder / ".prefect"),
            "PREFECT_CLI_PROMPT": "false",
            **{f"GIT_{who}_{what}": "reader@example.org" for who in _WHO for what in _WHAT},
        }

    def run(self, commands: str) -> tuple[int, str]:
        """Go on in the folder and with the variables of the last call: exit code and output."""
        state = shlex.quote(str(self._state))
        keep = f'{{ export -p; printf "cd %q\\n" "$PWD"; }} > {state}'
        script = f"[ ! -f {state} ] || . {state}\ntrap 'code=$?; {keep}; exit $code' EXIT\n"
        with self._log.open("w") as log:  # a pipe would be held open by what stays in background
            process = subprocess.Popen(
                ["bash", "-c", f"{script}set -e -o pipefail\n{commands}"],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._sessions.append(process.pid)
            code = process.wait()
        return code, self._log.read_text(encoding="utf-8", errors="replace")

    def follow(self, block: Block) -> None:
        """Run a block and check its exit code."""
        code, output = self.run(block.commands)
        where = f"{block.page}:{block.line}"
        print(f"{where}: exit code {code}\n{block.commands}{output[-1500:]}", flush=True)
        assert code == block.code, f"{where}: exit code {code}\n{block.commands}{output[-4000:]}"

    def end(self) -> None:
        """End what the commands left in the background."""
        for session in self._sessions:
            try:
                os.killpg(session, signal.SIGTERM)
            except ProcessLookupError:
                continue


_WHO = ("AUTHOR", "COMMITTER")
_WHAT = ("NAME", "EMAIL")


def _clone(target: Path) -> None:
    """The files that git knows, as they are here; `make setup` finds its work done."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith(".venv"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    commit = (
        "git init --quiet . && git add --all && "
        "git -c user.name=a -c user.email=a@example.org commit --quiet --message clone"
    )
    subprocess.run(["bash", "-c", commit], cwd=target, check=True)
    environment = target / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".stamp":
            (environment / part.name).symlink_to(part)
    (environment / ".stamp").touch()
