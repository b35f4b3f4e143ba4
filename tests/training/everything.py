"""A network that gives every by-product that a loss term reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mirnet.models import Network, registry
from mirnet.models.network import Prediction
from mirnet.models.registry import Architecture, Sizes
from mirnet.objectives.perceptual.features import VGG
from mirnet.objectives.registry import objectives

CHANNELS = {
    "curves": 6,
    "illumination": 1,
    "reflectance": 3,
    "relit": 1,
    "projected": 3,
    "reconstruction": 3,
}


def vgg() -> VGG:
    """A small one, the same in every process."""
    shapes = {0: (4, 3), 2: (4, 4), 5: (4, 4), 8: (4, 4), 11: (4, 4)}
    network, generator = VGG(shapes), torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.4, 0.4, generator=generator)
    return network


class NoSizes(Sizes):
    pass


class Everything(Network):
    """(N, 3, H, W) -> (N, 3, H, W); each by-product is a convolution of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 3, 3, padding=1)
        self.maps = nn.ModuleDict(
            {name: nn.Conv2d(3, count, 3, padding=1) for name, count in CHANNELS.items()}
        )

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.last(image)
        return out

    def predict(self, low: Tensor, high: Tensor) -> Prediction:
        found = {name: torch.sigmoid(conv(low)) for name, conv in self.maps.items()}
        for name in ("illumination", "reflectance"):
            found[f"{name}_high"] = torch.sigmoid(self.maps[name](high))
        found["illuminations"] = torch.stack([found["reflectance"], found["projected"]], dim=1)
        found["stage_inputs"] = torch.stack([low, low + found["projected"]], dim=1)
        found |= {"patches": found["reflectance"], "patches_high": high}
        mean = found["reflectance"].mean((2, 3))
        found |= {"activity": mean, "squared_weights": mean.square().sum(1)}
        found |= {"bits": mean.sum(1), "bits_true_mean": (mean - high.mean((2, 3))).sum(1)}
        return Prediction(self(low), found)


DETAILS = frozenset[str]().union(*(each.details for each in objectives()))
ENTRY = Architecture(
    family="everything",
    title="Everything",
    paper="none",
    licence=None,
    variants={"everything": NoSizes()},
    build=Everything,
    peak_values=lambda _: 30.0,
    halo=1,
    margin=1,
    details=DETAILS,
)


@contextmanager
def registered() -> Iterator[None]:
    registry.register(ENTRY)
    try:
        yield
    finally:
        registry.unregister("everything")
