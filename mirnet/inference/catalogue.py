"""What each network of the registry costs and can do."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mirnet.errors import UsageError
from mirnet.inference.enhancer import Enhancer
from mirnet.models.network import Network, num_parameters
from mirnet.models.registry import FORMS, Architecture, NetworkConfig, Sizes, architectures

HEIGHT, WIDTH = 400, 600
"""Size of LoL's images, to which the costs refer."""
_PASSES = 3


@dataclass(frozen=True)
class NetworkFacts:
    """One value of ``model.name``.

    Attributes:
        name: of the variant.
        family: title of the network.
        parameters: in the form for inference, in which some networks are smaller.
        gmac: 1e9 multiply-adds of convolutions and matrix products of a 400x600 image.
        objective: loss terms and weights that it is trained with by default.
        phases: of its training by default; empty: one.
        limits: what it cannot do, or does in its own way.
        paper: authors, title, venue.
        licence: of the published weights; none: there are none.
        megapixels_per_s: of a 400x600 image on this machine; none: not measured.
    """

    name: str
    family: str
    parameters: int
    gmac: float
    objective: Mapping[str, float]
    phases: tuple[str, ...]
    limits: tuple[str, ...]
    paper: str
    licence: str | None
    megapixels_per_s: float | None = None

    @property
    def trained_with(self) -> str:
        """Objective and phases in words for a table."""
        terms = ", ".join(f"{term} {weight:g}" for term, weight in self.objective.items())
        word = "phase" if len(self.phases) == 1 else "phases"
        return f"{terms}; {word} {', '.join(self.phases)}" if self.phases else terms


def network_facts(*, measure: bool = False) -> Iterator[NetworkFacts]:
    """All variants of all networks, by family.

    Args:
        measure: time each of them, with random weights; from milliseconds to a minute per network.
    """
    for architecture in architectures():
        for name in architecture.variants:
            yield facts_of(architecture, name, measure=measure)


def facts_of(architecture: Architecture, name: str, *, measure: bool = False) -> NetworkFacts:
    """One variant of a network; ``measure`` as for :func:`network_facts`."""
    config = NetworkConfig(architecture.family, architecture.variants[name])
    parameters, gmac = size_of(config)
    return NetworkFacts(
        name=name,
        family=architecture.title,
        parameters=parameters,
        gmac=gmac,
        objective=dict(architecture.objective),
        phases=tuple(architecture.phases),
        limits=limits(architecture, config.sizes),
        paper=architecture.paper,
        licence=architecture.licence,
        megapixels_per_s=_speed(config) if measure else None,
    )


@functools.cache
def size_of(config: NetworkConfig) -> tuple[int, float]:
    """Parameters and GMAC as :class:`NetworkFacts` has them, of any sizes."""
    with torch.device("meta"):
        network = config.build().eval().folded()
    return num_parameters(network), _gmac(network)


def limits(architecture: Architecture, sizes: Sizes) -> tuple[str, ...]:
    """What a network cannot do at these sizes, in words for a table."""
    exact = not architecture.pools_globally or architecture.averages_per_pass(sizes)
    missing = [form for form in FORMS if form not in architecture.exports]
    found = {
        f"takes {architecture.domain}, trained and run elsewhere": architecture.domain != "srgb",
        f"enlarges by {architecture.output_scale}": architecture.output_scale != 1,
        "sampled output": architecture.sampled,
        "no tiles: images within the memory limit only": not architecture.tiled,
        "tiles with estimated averages": architecture.tiled and not exact,
        "float32 only": not architecture.bf16,
        "no train.accumulate": architecture.batch_statistics,
        f"no export to {', '.join(missing)}": bool(missing),
    }
    return tuple(text for text, holds in found.items() if holds)


def _gmac(network: Network) -> float:
    """Counted without computing anything: on torch's device for shapes."""
    multiple = network.size_multiple
    height, width = (-(-side // multiple) * multiple for side in (HEIGHT, WIDTH))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, network.architecture.channels, height, width, device="meta"))
    return float(counter.get_total_flops() / 2e9)


def _speed(config: NetworkConfig) -> float | None:
    """Megapixels per second of the fastest pass, decoding and encoding left out."""
    try:
        config.architecture.check_plain()
    except UsageError:
        return None
    return HEIGHT * WIDTH / 1e6 / seconds_of_pass(config)


def seconds_of_pass(config: NetworkConfig) -> float:
    """Of a 400x600 image with random weights: the fastest of three passes."""
    enhancer = Enhancer(config.build(), compile=False)
    image = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    fastest = float("inf")
    for _ in range(_PASSES):
        started = time.perf_counter()
        enhancer(image)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest
