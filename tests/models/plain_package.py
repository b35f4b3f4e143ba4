"""A package that registers a network by an entry point, as pip would install it."""

from __future__ import annotations

from pathlib import Path

ENTRY = """
from pydantic import Field
from mirnet.models.registry import Architecture, Sizes, register

class PlainSizes(Sizes):
    width: int = Field(ge=4, le=256, description="channels between the convolutions")

def build(**sizes):
    from plain_network.network import Plain
    return Plain(**sizes)

register(Architecture(
    family="plain", title="Plain", paper="none", licence=None,
    variants={"plain": PlainSizes(width=32), "plain-s": PlainSizes(width=8)},
    build=build, peak_values=lambda sizes: 3.0 * sizes.width, halo=4, margin=2,
))
"""
NETWORK = """
from torch import nn
from mirnet.models.network import Network

class Plain(Network):
    def __init__(self, *, width):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image):
        return image + self.second(self.first(image.to(self.first.weight.dtype)).relu())
"""
POINTS = """
[mirnet.models]
plain = plain_network.entry
absent = plain_network.absent
taken = plain_network.taken
"""
TAKEN = ENTRY.replace('"plain"', '"mirnet"').replace('"plain-s"', '"mirnet-q"')


def install(folder: Path) -> Path:
    """Write the package ``plain-network`` into a folder of packages."""
    files = {
        "plain_network/__init__.py": "",
        "plain_network/entry.py": ENTRY,
        "plain_network/network.py": NETWORK,
        "plain_network/taken.py": TAKEN,
        "plain_network-1.0.dist-info/METADATA": "Name: plain-network\nVersion: 1.0\n",
        "plain_network-1.0.dist-info/entry_points.txt": POINTS,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
