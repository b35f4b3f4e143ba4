"""The registry of networks: one entry per family, with all facts that other packages need.

Entries load without torch; their functions import the network when they are called. Built-in
entries are found by folder: ``mirnet/models/NETWORK/entry.py`` calls :func:`register`. Those of
other installed packages are found by their entry points in the group ``mirnet.models``, so that
commands and workers on other machines load them as well.
docs/howto/new-network.md shows how to add one.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mirnet.errors import UsageError

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat

Domain = Literal["srgb", "linear-rgb", "packed-raw"]
Form = Literal["pt2", "onnx", "int8"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
FORMS: tuple[Form, ...] = ("pt2", "onnx", "int8")
GROUP = "mirnet.models"
"""Group of the entry points of installed packages that register networks."""

# over the tiles, for averages; each ends on average half through the network
MOST_PASSES = 10

logger = logging.getLogger(__name__)


class Sizes(BaseModel):
    """Base of the sizes that a network is built from, one field each, with bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the training that a network's paper describes.

    Attributes:
        share: of the run.
        loss: weights of terms that differ from ``train.loss`` in it; 0 leaves a term out.
        trains: prefixes of the names of the parameters that it changes.
        lr: factor of the learning rate.
    """

    share: float
    loss: Mapping[str, float] = field(default_factory=dict)
    trains: tuple[str, ...] = ("",)
    lr: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """The entry of a family of networks.

    Attributes:
        family: name in model folders; lower case, with hyphens.
        title: name in messages.
        paper: authors, title, venue.
        licence: of the published weights; none: there are none.
        variants: sizes by the names that ``model.name`` takes; all of one class.
        build: the network from its sizes as keywords, freshly initialised, float32 on CPU.
        peak_values: peak number of stored values per pixel of one pass, by the sizes; measured.
        halo: pixels that a tile reads beyond what it writes; at least the margin.
        margin: pixels at the border of the input that zero padding affects.
        size_multiple: height, width, halo and margin are multiples of it.
        min_size: minimum height and width of the input.
        pools_globally: whether an output pixel depends on averages over the whole image.
            ``forward`` then takes a :class:`~mirnet.models.layers.pooling.GlobalPooling`, so that
            tiles share them.
        averages_per_pass: how many of these averages each pass over the tiles of a large image
            collects exactly, in their order of use, by the sizes. An average depends on those of
            earlier passes alone, and a pass ends behind the last one that it collects. Empty: that
            would be too many passes, so they are estimated from a copy and crops.
        aligned_corners: whether it resizes maps with aligned corners, so that the place of every
            sample depends on the size of the whole image. ``forward`` then takes a
            ``GlobalPooling``, too, and ``num_statistics`` counts its frame.
        tiled: whether large images are processed in tiles; not where every output pixel depends on
            all others through more than such averages.
        objective: default of ``train.loss``: loss terms and their weights.
        phases: of its training by name, in order; default of ``train.phases``. Empty: one.
        details: by-products of its training pass (``Network.predict``) that loss terms may read.
        domain: colour space of the input.
        channels: of the input.
        output_scale: height of the output over that of the input.
        batch_statistics: whether it normalises with statistics of the training batch.
        sampled: whether the output is sampled, so that equal inputs give different outputs.
        bf16: whether bf16 is allowed: with trained weights its output then deviates from that in
            float32 by less than one grey level of 255 on average, and by some levels at single
            pixels (IAT's published weights by 0.5 and 5).
        exports: formats that it can be exported to.
        published: reads checkpoints of the paper's authors; none: not supported.
    """

    family: str
    title: str
    paper: str
    licence: str | None
    variants: Mapping[str, Sizes]
    build: Callable[..., Network]
    peak_values: Callable[[Any], float]
    halo: int
    margin: int
    size_multiple: int = 1
    min_size: int = 1
    pools_globally: bool = False
    averages_per_pass: Callable[[Any], tuple[int, ...]] = lambda _: ()
    aligned_corners: bool = False
    tiled: bool = True
    objective: Mapping[str, float] = field(default_factory=lambda: {"charbonnier": 1.0})
    phases: Mapping[str, Phase] = field(default_factory=dict)
    details: frozenset[str] = frozenset()
    domain: Domain = "srgb"
    channels: int = 3
    output_scale: int = 1
    batch_statistics: bool = False
    sampled: bool = False
    bf16: bool = True
    exports: frozenset[Form] = frozenset(FORMS)
    published: Callable[[], PublishedFormat] | None = None

    def __post_init__(self) -> None:
        if not self.variants or len({type(sizes) for sizes in self.variants.values()}) != 1:
            raise ValueError(f"{self.family}: variants with sizes of one class are needed")
        for name in ("halo", "margin", "min_size"):
            if getattr(self, name) % self.size_multiple:
                raise ValueError(f"{self.family}: {name} is no multiple of {self.size_multiple}")
        if self.halo < self.margin:
            raise ValueError(f"{self.family}: a halo of at least the margin is needed")

    @property
    def size_class(self) -> type[Sizes]:
        """The pydantic model of the sizes."""
        return type(next(iter(self.variants.values())))

    @property
    def shares(self) -> dict[str, float]:
        """Shares of a run that the phases have by default."""
        return {name: phase.share for name, phase in self.phases.items()}

    @property
    def takes_statistics(self) -> bool:
        """Whether tiles are given something of the whole image."""
        return self.pools_globally or self.aligned_corners

    def configure(self, sizes: Mapping[str, Any], *, where: str = "model") -> NetworkConfig:
        """A network of this family with these sizes, which must be complete.

        Raises:
            UsageError: an unknown size, one that is missing or out of bounds; ``where.size: ...``.
        """
        try:
            return NetworkConfig(self.family, self.size_class.model_validate(dict(sizes)))
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in (where, *problem["loc"]))
            if problem["type"] == "extra_forbidden":
                sizes_of = ", ".join(self.size_class.model_fields) or "none"
                raise UsageError(
                    f"unknown parameter {key}; sizes of {self.family}: {sizes_of}"
                ) from error
            raise UsageError(f"{key}: {problem['msg']} (got {problem['input']!r})") from error

    def check_export(self, form: Form) -> None:
        """Check that the network can be exported to a format.

        Raises:
            UsageError: it cannot; names the formats that it can be exported to.
        """
        if form not in self.exports:
            forms = ", ".join(each for each in FORMS if each in self.exports) or "no form"
            raise UsageError(f"{self.title} is not exported to {form}; it is to {forms}")

    def precision(self, asked: Precision) -> Precision:
        """The arithmetic of the network where ``asked`` is set; ``auto`` may become float32.

        Raises:
            UsageError: a lower precision is asked for than the network allows.
        """
        if self.bf16 or asked == "float32":
            return asked
        if asked != "auto":
            raise UsageError(f"{self.title} is not accurate in {asked}: precision=float32")
        return "float32"

    def check_plain(self) -> None:
        """Check that inference and training support the network.

        Raises:
            UsageError: it does not map sRGB to sRGB of the same size, or samples its output.
        """
        if self.domain != "srgb" or self.channels != 3:
            given = f"{self.domain} with {self.channels} channels"
            raise UsageError(f"{self.title} takes {given}: only sRGB with 3 is supported")
        if self.output_scale != 1:
            raise UsageError(f"{self.title} enlarges by {self.output_scale}: not supported")
        if self.sampled:
            raise UsageError(f"{self.title} samples its output: not supported")


def in_chain(count: int) -> tuple[int, ...]:
    """:attr:`Architecture.averages_per_pass` where each of ``count`` depends on the one before."""
    return (1,) * count if count <= MOST_PASSES else ()


@dataclass(frozen=True)
class NetworkConfig:
    """A family and its sizes: everything that is needed to build a network."""

    family: str
    sizes: Sizes

    def __str__(self) -> str:
        given = self.sizes.model_dump(exclude_defaults=True)
        sizes = ", ".join(f"{name} {value}" for name, value in given.items())
        return f"{self.family} ({sizes})" if sizes else self.family

    @property
    def architecture(self) -> Architecture:
        return by_family(self.family)

    @property
    def averages_per_pass(self) -> tuple[int, ...]:
        """That of its entry, at these sizes."""
        return self.architecture.averages_per_pass(self.sizes)

    def build(self) -> Network:
        network = self.architecture.build(**self.sizes.model_dump())
        network.config = self
        return network


_families: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Add a network, under its family and the names of its variants.

    Raises:
        ValueError: one of the names is taken.
    """
    taken = {name for each in _families.values() for name in (each.family, *each.variants)}
    if both := taken & {architecture.family, *architecture.variants}:
        raise ValueError(f"there is a network named {sorted(both)[0]} already")
    _families[architecture.family] = architecture


def unregister(family: str) -> None:
    """Remove a network from the registry; for tests."""
    del _families[family]


def architectures() -> tuple[Architecture, ...]:
    """All entries, sorted by family."""
    _find()
    return tuple(_families[family] for family in sorted(_families))


def list_architectures() -> tuple[str, ...]:
    """Names of all variants of all networks: the values of ``model.name`` in the params."""
    return tuple(name for architecture in architectures() for name in architecture.variants)


def by_name(name: str) -> Architecture:
    """The entry with a variant of this name.

    Raises:
        UsageError: there is none; suggests the most similar name and lists all.
    """
    for architecture in architectures():
        if name in architecture.variants:
            return architecture
    raise UsageError(f"model.name: {_unknown(name, list_architectures())}")


def by_family(family: str) -> Architecture:
    """The entry of a family, as model folders name it.

    Raises:
        UsageError: there is none.
    """
    _find()
    if family not in _families:
        raise UsageError(f"architecture.network: {_unknown(family, tuple(_families))}")
    return _families[family]


def configure(name: str, **sizes: Any) -> NetworkConfig:
    """The named network; the given sizes replace its own.

    Raises:
        UsageError: an unknown name or size, or a size out of bounds; names the parameter.
    """
    architecture = by_name(name)
    return architecture.configure(architecture.variants[name].model_dump() | sizes)


def build(name: str, **sizes: Any) -> Network:
    """The network that :func:`configure` describes, freshly initialised, float32 on CPU.

    Raises:
        UsageError: an unknown name or size, or a size out of bounds; names the parameter.
    """
    return configure(name, **sizes).build()


def _unknown(name: str, existing: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, existing, n=1)
    hint = f", did you mean {near[0]}?" if near else ";"
    return f"no network {name!r}{hint} Known: {', '.join(existing)}"


@functools.cache
def _find() -> None:
    for entry in sorted(Path(__file__).parent.glob("*/entry.py")):
        importlib.import_module(f"mirnet.models.{entry.parent.name}.entry")
    _find_installed()


def _find_installed() -> None:
    """Import what entry points name; one that fails is left out with a warning."""
    from importlib.metadata import entry_points  # slow to import

    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001 - the code of another package
            package = point.dist.name if point.dist else "an unknown package"
            reason = f"{type(error).__name__}: {error}"
            logger.warning("%s of %s is left out: %s", point.value, package, reason)
