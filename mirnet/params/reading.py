"""Params from a YAML file or a preset, with single values changed on the command line."""

from __future__ import annotations

import ast
import logging
from collections.abc import Container, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mirnet.errors import UsageError, without_kind
from mirnet.models.registry import by_name, list_architectures
from mirnet.params.recipe import TrainParams, patch_sizes_near
from mirnet.params.sections import EnhanceParams, ModelParams, Params

logger = logging.getLogger(__name__)


class _Loader(yaml.SafeLoader):
    """A number with a plus sign stays text: the sign has a meaning in ``enhance.exposure``.

    Everywhere else pydantic reads the number in the text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - of the base class
        first: resolvers
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        if first != "+"
    }


def _parsed(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def preset_names() -> list[str]:
    """Names that ``--params`` takes besides a file."""
    folder = resources.files("mirnet.presets")
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_params(source: str | Path | None = None, *, overrides: tuple[str, ...] = ()) -> Params:
    """Read params from a preset name or a YAML file, then apply ``section.key=value``.

    Without a source: ``params.yaml`` in the working directory, else the ``cpu`` preset. Patch sizes
    that were not chosen for the network (those of a preset, or of a file whose ``model.name`` an
    override replaces) are rounded to the nearest that it takes, with a warning.

    Raises:
        UsageError: no such preset or file, unknown key, or a value out of bounds; names the key.
    """
    values, origin = _read_params(source)
    changed = {_apply_override(values, override): f"--set {override}" for override in overrides}
    own = origin != f"preset {source}" and "model.name" not in changed
    _fit_patches(values, given={"patch_size", "progressive"} if own else _keys(changed, "train"))
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        origin = changed.get(".".join(map(str, error.errors()[0]["loc"][:2])), origin)
        raise UsageError(f"{origin}: {_first_problem(error)}") from error


def params_from(values: Mapping[str, Any]) -> Params:
    """Params from values by section, as :meth:`Params.model_dump` gives them.

    Raises:
        UsageError: unknown key, or a value out of bounds; names the key.
    """
    try:
        return Params.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from error


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
        raise UsageError(f"--{name} {problem['input']}: {without_kind(problem['msg'])}") from error
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
        values = _parsed(text) or {}
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
        value = _parsed(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not YAML") from error
    if isinstance(value, str):
        value = _number_or_text(value)
    branch = values.setdefault(section, {})
    if not isinstance(branch, dict):
        raise UsageError(f"--set {override}: {section} is not a section")
    branch[key] = value
    return path


def _keys(paths: Iterable[str], section: str) -> set[str]:
    return {path.removeprefix(f"{section}.") for path in paths if path.startswith(f"{section}.")}


def _fit_patches(values: dict[str, Any], *, given: Container[str]) -> None:
    """Round patch sizes to what the network takes, in place, unless a user gave them for it.

    Values that are not valid are left to the validation.
    """
    model, train = values.get("model") or {}, values.get("train") or {}
    stages = train.get("progressive") if isinstance(train, dict) else None
    if not (isinstance(model, dict) and isinstance(train, dict)):
        return
    name = model.get("name", ModelParams.model_fields["name"].default)
    if name not in list_architectures():
        return
    values["train"] = train
    if "patch_size" not in train or "patch_size" not in given:
        train.setdefault("patch_size", TrainParams.model_fields["patch_size"].default)
        _fit_patch(train, name)
    if isinstance(stages, list) and "progressive" not in given:
        for stage in stages:
            if isinstance(stage, dict):
                _fit_patch(stage, name)


def _fit_patch(holder: dict[str, Any], name: str) -> None:
    size, multiple = holder.get("patch_size"), by_name(name).size_multiple
    if isinstance(size, int) and size % multiple and (near := patch_sizes_near(size, multiple)):
        holder["patch_size"] = used = near[0]
        logger.warning(
            "train.patch_size: %d is used in place of %d, %s takes multiples of %d",
            *(used, size, name, multiple),
        )


def _number_or_text(text: str) -> float | str:
    """YAML 1.1 reads 1e-3 as text; the number is meant, unless its sign has a meaning."""
    if text.startswith("+"):
        return text
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
    return f"{where}: {without_kind(problem['msg'])} (got {problem['input']!r})"
