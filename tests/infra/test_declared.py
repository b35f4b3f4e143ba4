"""pyproject.toml declares what is imported: at run time, by an extra, or for development."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
OURS = {"mirnet", "flows", "docs", "tests", "benchmarks"}
SOURCES = sorted([*ROOT.glob("mirnet/**/*.py"), *ROOT.glob("flows/**/*.py")])
TESTS = sorted(
    [*ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/*.py"), *ROOT.glob("benchmarks/*.py")]
)
# declared for another reason than an import
NOT_IMPORTED = {
    "dvc-s3": "DVC finds its remotes as plugins",
    "fastapi": "a bound for prefect",
}
_OWNERS = importlib.metadata.packages_distributions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, set[str]]:
    """Distributions by extra; those of a plain install under the empty name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"]} | project["optional-dependencies"]
    return {
        extra: {normal(Requirement(line).name) for line in lines} for extra, lines in groups.items()
    }


GROUPS = declared()
EXTRAS = {name: found for name, found in GROUPS.items() if name not in ("", "dev")}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Top names of what is not ours, each with whether only a function or a type needs it."""
    lazy: set[ast.AST] = set()
    for node in ast.walk(tree):
        delayed = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        if delayed:
            lazy |= set(ast.walk(node))
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in OURS:
                yield top, node in lazy


def distributions(module: str) -> set[str]:
    return {normal(name) for name in _OWNERS.get(module, ())}


@cache
def announced() -> dict[str, set[str]]:
    """Modules by extra, as calls of ``need`` name them, constants of the file included."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: [
                str(word.value) for word in ast.walk(node.value) if isinstance(word, ast.Constant)
            ]
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in (
                "need",
                "extras.need",
            ):
                continue
            extra, *modules = call.args
            names: set[str] = set()
            for word in modules:
                if isinstance(word, ast.Starred):
                    names |= set(constants[ast.unparse(word.value)])
                elif isinstance(word, ast.Constant):
                    names.add(str(word.value))
            found.setdefault(ast.literal_eval(extra), set()).update(names)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_the_package_imports_comes_with_it_or_with_a_named_extra(path: Path) -> None:
    for module, lazy in imports(ast.parse(path.read_text(encoding="utf-8"))):
        owners = distributions(module)
        assert owners, f"{module} belongs to no installed distribution"
        if owners & GROUPS[""]:
            continue
        extras = [extra for extra, names in EXTRAS.items() if owners & names]
        assert extras, f"{module} of {owners} is declared nowhere"
        assert lazy, f"{module} is of the extra {extras}: import it inside the function"
        asked = announced()
        assert any(module in asked.get(extra, ()) for extra in extras), (
            f"nothing calls need({extras[0]!r}, {module!r}) before {path.name} imports it"
        )


def test_what_is_asked_for_is_in_that_extra() -> None:
    asked = announced()
    assert asked["export"] == {"onnx", "onnxruntime", "onnxscript"}
    assert asked["stack"] >= {"psycopg2"}
    # Flask-WTF is what mlflow[auth] adds
    added = {"flask_wtf": {"mlflow"}}
    for extra, modules in asked.items():
        for module in modules:
            owners = added.get(module, distributions(module))
            assert owners & EXTRAS[extra], f"{module} is not in the extra {extra}"


def test_nothing_is_declared_for_a_plain_install_that_is_not_used() -> None:
    used = {
        owner
        for path in SOURCES
        for module, _ in imports(ast.parse(path.read_text(encoding="utf-8")))
        for owner in distributions(module)
    }
    assert GROUPS[""] - used == set(NOT_IMPORTED)


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_tests_import_is_declared(path: Path) -> None:
    beside = {p.stem for p in TESTS}
    known = set().union(*GROUPS.values()) | {"mirnet-pipeline"}
    for module, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if module not in beside:
            assert distributions(module) & known, f"{module} is declared nowhere"


def test_boto3_is_new_enough_for_conditional_writes() -> None:
    """``put_object`` has IfNoneMatch since 1.35.2 and IfMatch since 1.35.69."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {r.name: r.specifier for line in project["dependencies"] if (r := Requirement(line))}
    for name in ("boto3", "botocore"):
        assert not bounds[name].contains("1.35.68")
        assert bounds[name].contains("1.35.69")
