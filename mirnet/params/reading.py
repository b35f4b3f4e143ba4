"""Params from a YAML file or a preset, with single values changed on the command line."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mirnet.errors import UsageError
from mirnet.params.sections import EnhanceParams, Params


def preset_names() -> list[str]:
    """Names that ``--params`` takes besides a file."""
    folder = resources.files("mirnet.presets")
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_params(source: str | Path | None = None, *, overrides: tuple[str, ...] = ()) -> Params:
    """Read params from a preset name or a YAML file, then apply ``section.key=value``.

    Without a source: ``params.yaml`` in the working directory, else the ``cpu`` preset.

    Raises:
        UsageError: no such preset or file, unknown key, or a value out of bounds; names the key.
    """
    values, origin = _read_params(source)
    changed = {_apply_override(values, override): f"--set {override}" for override in overrides}
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        origin = changed.get(".".join(map(str, error.errors()[0]["loc"][:2])), origin)
        raise UsageError(f"{origin}: {_first_problem(error)}") from error


def with_enhance_options(params: Params, **options: str | None) -> Params:
    """Params with values of ``enhance`` that options of that name give; none: not given.

    Raises:
        UsageError: a value is out of bounds; names the option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        section = EnhanceParams.model_validate(params.enhance.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        name = problem["loc"][0]
        raise UsageError(f"--{name} {problem['input']}: {problem['msg']}") from error
    return params.model_copy(update={"enhance": section})


def params_of_run(logged: Mapping[str, str]) -> Params:
    """The params of a run in MLflow, which has them flat and as text (:meth:`Params.flat`).

    Keys that the run does not have get their defaults.

    Raises:
        UsageError: a key that this version does not know, or a value that it refuses.
    """
    values: dict[str, Any] = {}
    for key, text in logged.items():
        section, dot, name = key.partition(".")
        if dot:
            values.setdefault(section, {})[name] = _value_of(text)
        elif key == "preset":
            values[key] = text
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"params of the run: {_first_problem(error)}") from error


def _value_of(text: str) -> Any:
    """The value that ``str`` wrote: a number, list, dict or none; everything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _read_params(source: str | Path | None) -> tuple[dict[str, Any], str]:
    if source is None:
        source = Path("params.yaml") if Path("params.yaml").is_file() else "cpu"
    if str(source) in preset_names():
        text = (resources.files("mirnet.presets") / f"{source}.yaml").read_text(encoding="utf-8")
        origin = f"preset {source}"
    elif Path(source).is_file():
        text, origin = Path(source).read_text(encoding="utf-8"), str(source)
    else:
        raise UsageError(
            f"--params {source}: no such file, and no such preset ({', '.join(preset_names())})"
        )
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{origin}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{origin}: expected sections with keys, such as train: {{lr: 0.001}}")
    return values, origin


def _apply_override(values: dict[str, Any], override: str) -> str:
    """Set one value; returns its path, ``section.key``."""
    path, equals, text = override.partition("=")
    section, dot, key = path.partition(".")
    if not (equals and dot and section and key):
        raise UsageError(f"--set {override}: write it as section.key=value, e.g. train.lr=0.001")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not YAML") from error
    if isinstance(value, str):
        value = _number_or_text(value)
    branch = values.setdefault(section, {})
    if not isinstance(branch, dict):
        raise UsageError(f"--set {override}: {section} is not a section")
    branch[key] = value
    return path


def _number_or_text(text: str) -> float | str:
    """YAML 1.1 reads 1e-3 as text; the number is meant."""
    try:
        return float(text)
    except ValueError:
        return text


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {where}"
    if problem["type"] == "value_error" and isinstance(problem["ctx"]["error"], UsageError):
        return str(problem["ctx"]["error"])  # names the parameter itself
    return f"{where}: {problem['msg']} (got {problem['input']!r})"
