"""The entry of HVI-CIDNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class CIDNetSizes(Sizes):
    """Sizes of HVI-CIDNet; its lower levels have 1, 2 and 4 times ``width`` channels."""

    # up to eight heads share four times as many channels
    width: int = Field(ge=4, le=128, multiple_of=2, description="channels at full resolution")
    saturation: float = Field(
        ge=0.1, le=4, description="factor of the output's saturation; 1.3 in the paper's LoL scores"
    )


def _build(**sizes: Any) -> Network:
    from mirnet.models.cidnet.network import CIDNet

    return CIDNet(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.cidnet.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="cidnet",
        title="HVI-CIDNet",
        paper="Yan et al., HVI: A New Color Space for Low-light Image Enhancement, CVPR 2025",
        licence="MIT (code); none stated for the weights",
        variants={
            "cidnet": CIDNetSizes(width=36, saturation=1.0),
            "cidnet-s": CIDNetSizes(width=16, saturation=1.0),
        },
        build=_build,
        peak_values=lambda sizes: 16.0 * sizes.width,
        halo=64,
        margin=16,
        size_multiple=8,
        min_size=8,
        pools_globally=True,
        # both branches attend to each other at once; so do blocks 2, for the skips, and 3
        averages_per_pass=lambda _: (2, 4, 2, 1, 2),
        aligned_corners=True,
        objective={
            **{"l1": 1.0, "ssim": 0.5, "pyramid-edge": 50.0},
            **{"hvi": 1.0, "hvi-ssim": 0.5, "hvi-pyramid-edge": 50.0},
        },
        published=_published,
    )
)
