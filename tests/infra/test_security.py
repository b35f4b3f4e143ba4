"""What the code never does: unpickle, evaluate text, use a shell, skip the check of TLS."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("mirnet/**/*.py"), *ROOT.glob("flows/**/*.py")])
FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "yaml.load",
    "yaml.unsafe_load",
    "eval",
    "exec",
    "os.system",
    "ssl._create_unverified_context",
}
# a child process gets its handler from the process that started it, over an inherited socket
ALLOWED = {"mirnet/batch/isolation.py": ["pickle.loads"]}
UNPICKLERS = {"cloudpickle", "dill", "joblib", "shelve", "marshal"}


def problems(tree: ast.AST) -> list[str]:
    """What is not allowed in a module, by line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{node.lineno}: {n}" for n in names if n.split(".")[0] in UNPICKLERS]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        wrong = (
            called in FORBIDDEN
            or (called.endswith("torch.load") and given.get("weights_only") != "True")
            or given.get("allow_pickle", "False") != "False"
            or given.get("shell", "False") != "False"
            or given.get("verify") == "False"
        )
        if wrong:
            found.append(f"{node.lineno}: {called}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_does_nothing_of_it(path: Path) -> None:
    found = problems(ast.parse(path.read_text(encoding="utf-8")))
    allowed = ALLOWED.get(path.relative_to(ROOT).as_posix(), [])
    assert [each.partition(": ")[2] for each in found] == allowed, found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle; pickle.loads(b'')",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "import numpy as np; np.load('x', allow_pickle=True)",
        "import yaml; yaml.load('x')",
        "import subprocess; subprocess.run('x', shell=True)",
        "from joblib import load",
        "eval('1')",
    ],
)
def test_each_of_them_would_be_found(code: str) -> None:
    assert problems(ast.parse(code))


def test_the_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| [^*|].*\| (.*) \|$", page.partition("\nNot covered: an attacker")[0], re.M
    )[1:]
    assert len(rows) > 20
    for row in rows[1:]:
        for name in re.findall(r"`([^`]+)`", row):
            assert (ROOT / "tests" / name).exists(), name
