"""The search space: networks with values for their sizes, and values for the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from mirnet.errors import UsageError, problem_of
from mirnet.models.registry import Architecture, by_name
from mirnet.params import Params, Section, params_from
from mirnet.params.recipe import patch_sizes_near

if TYPE_CHECKING:
    import numpy as np

Choices = tuple[JsonValue, ...]

OWN = frozenset(
    {
        *("seed", "num_epochs", "steps_per_epoch", "validate_every", "early_stop", "compile"),
        *("samples_every", "checkpoint_every", "init_from", "distill_from", "perceptual_weights"),
        "replay",
    }
)
"""Params of ``train`` that the search sets itself."""
_GIVE_UP_AFTER = 1000
"""Draws in a row that gave nothing new."""


class Range(Section):
    """Numbers between two bounds, drawn uniformly on a logarithmic scale."""

    low: float = Field(gt=0, description="smallest value")
    high: float = Field(gt=0, description="largest value")

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """A value of three significant digits."""
        value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return float(f"{min(max(value, self.low), self.high):.3g}")


Values = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("values")],
    Discriminator(lambda given: "range" if isinstance(given, dict | Range) else "values"),
]


class SearchSpace(Section):
    """What is searched over. Every value is one that ``params.yaml`` could have."""

    networks: dict[str, dict[str, Choices]] = Field(
        min_length=1,
        description="values of model.name; for each the values of its sizes, those that are not "
        "named stay",
    )
    train: dict[str, Values] = Field(
        {},
        description="params of train: a list of values, or {low, high} of a logarithmic scale; "
        "null in loss: the objective of the network",
    )

    @field_validator("networks")
    @classmethod
    def _sizes_have_values(
        cls, networks: dict[str, dict[str, Choices]]
    ) -> dict[str, dict[str, Choices]]:
        for name, sizes in networks.items():
            for size, values in sizes.items():
                if not values:
                    raise ValueError(f"{name}.{size}: no values")
        return networks

    @field_validator("train")
    @classmethod
    def _not_our_own(cls, train: dict[str, Values]) -> dict[str, Values]:
        for key, values in train.items():
            if key in OWN:
                raise ValueError(f"train.{key} is set by the search itself")
            if values == ():
                raise ValueError(f"train.{key}: no values")
        return train


@dataclass(frozen=True)
class Configuration:
    """One point of the space; ``label`` names what was drawn."""

    params: Params
    label: str


def read_space(path: Path) -> SearchSpace:
    """The space of a YAML file.

    Raises:
        UsageError: no such file, not YAML, or not a space; names the key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--space {path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--space {path}: not YAML: {str(error).splitlines()[0]}") from error
    try:
        return SearchSpace.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"--space {path}: {problem_of(error)}") from error


def default_space(networks: Sequence[str]) -> SearchSpace:
    """For these networks: whole-number sizes halved, as they are, and doubled; and the recipe."""
    return SearchSpace(
        networks={name: _around(by_name(name), name) for name in networks},
        train={
            "lr": Range(low=5e-4, high=5e-3),
            "schedule": ("cosine", "two-cycle"),
            "loss": (None, {"l1": 1.0}, {"charbonnier": 1.0, "ssim": 0.2}),
        },
    )


def _around(architecture: Architecture, name: str) -> dict[str, Choices]:
    """Values within the bounds of each size."""
    own = architecture.variants[name].model_dump()
    found: dict[str, Choices] = {}
    for size, value in own.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        near = sorted({value // 2, value, value * 2})
        allowed = tuple(v for v in near if _is_allowed(architecture, own | {size: v}))
        if len(allowed) > 1:
            found[size] = allowed
    return found


def _is_allowed(architecture: Architecture, sizes: Mapping[str, Any]) -> bool:
    try:
        architecture.configure(sizes)
    except UsageError:
        return False
    return True


def check_space(space: SearchSpace, base: Params) -> None:
    """Check every value of the space, with each of its networks, before anything is started.

    Raises:
        UsageError: the first value that the params or the network refuse.
    """
    recipe = base.train
    for key in ("init_from", "distill_from", "perceptual_weights", "replay"):
        if getattr(recipe, key) is not None:
            raise UsageError(f"train.{key}: a search trains from scratch, and without it")
    for name, sizes in space.networks.items():
        by_name(name).check_plain()
        _check(base, name, {}, {})
        for size, values in sizes.items():
            for value in values:
                _check(base, name, {size: value}, {})
        for key, given in space.train.items():
            for value in (given.low, given.high) if isinstance(given, Range) else given:
                _check(base, name, {}, {key: value})


def _check(base: Params, name: str, sizes: Mapping[str, Any], train: Mapping[str, Any]) -> None:
    try:
        configured(base, name, sizes, train)
    except UsageError as error:
        raise UsageError(f"search space, network {name}: {error}") from error


def configured(
    base: Params, name: str, sizes: Mapping[str, Any], train: Mapping[str, Any]
) -> Params:
    """The base params with a network and values for the recipe.

    Objective and phases are the network's own unless they are given here, or the base params have
    others than those of their network. Patches are of the nearest size that the network takes.

    Raises:
        UsageError: a value that the params or the network refuse.
    """
    values = base.model_dump(by_alias=True, mode="json", exclude_unset=True)
    recipe: dict[str, Any] = values.get("train", {})
    usual = base.model.config.architecture
    for key, value in (("loss", dict(usual.objective)), ("phases", usual.shares)):
        if recipe.get(key) == value:
            del recipe[key]
    recipe |= {key: value for key, value in train.items() if value is not None or key != "loss"}
    multiple = by_name(name).size_multiple
    if "patch_size" not in train:
        recipe["patch_size"] = _nearest(base.train.patch_size, multiple)
    for stage in recipe.get("progressive", ()):
        stage["patch_size"] = _nearest(stage["patch_size"], multiple)
    own = name == base.model.name
    model = (values.get("model", {}) if own else {}) | {"name": name} | dict(sizes)
    params = params_from(values | {"model": model, "train": recipe})
    params.model.config.architecture.precision(params.train.precision)
    return params


def _nearest(size: int, multiple: int) -> int:
    return patch_sizes_near(size, multiple)[0] if size % multiple else size


def configurations(space: SearchSpace, base: Params, *, seed: int) -> Iterator[Configuration]:
    """The base params, then different points of the space in an order that the seed fixes.

    Ends when the space has nothing new. Combinations that the network refuses are left out.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    default = configured(base, base.model.name, {}, {})
    seen = {_identity(default)}
    yield Configuration(default, f"default ({base.model.name})")
    names, misses = sorted(space.networks), 0
    while misses < _GIVE_UP_AFTER:
        name = names[int(generator.integers(len(names)))]
        sizes = {k: _draw(v, generator) for k, v in sorted(space.networks[name].items())}
        train = {k: _draw(v, generator) for k, v in sorted(space.train.items())}
        try:
            params = configured(base, name, sizes, train)
        except UsageError:
            misses += 1
            continue
        if _identity(params) in seen:
            misses += 1
            continue
        misses = 0
        seen.add(_identity(params))
        yield Configuration(params, _label(name, sizes, train))


def _draw(values: Choices | Range, generator: np.random.Generator) -> JsonValue:
    if isinstance(values, Range):
        return values.draw(generator)
    return values[int(generator.integers(len(values)))]


def _identity(params: Params) -> str:
    """Equal for equal networks, however their sizes were given."""
    return f"{params.model.config} {params.model_dump_json(exclude={'model'})}"


def _label(name: str, sizes: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    drawn = {**sizes, **train}
    return " ".join([name, *(f"{key}={_text(value)}" for key, value in drawn.items())])


def _text(value: Any) -> str:
    if value is None:
        return "own"
    if isinstance(value, dict):
        return "+".join(f"{weight:g}*{term}" for term, weight in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
