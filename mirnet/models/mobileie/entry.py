"""The entry of MobileIE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Phase, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class MobileIESizes(Sizes):
    """Sizes of MobileIE."""

    channels: int = Field(ge=3, le=64, description="channels of all feature maps")
    expansion: int = Field(
        ge=0, le=8, description="channels per branch over those of the output; 0: folded"
    )


def _build(**sizes: int) -> Network:
    from mirnet.models.mobileie.network import MobileIE

    return MobileIE(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.mobileie.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="mobileie",
        title="MobileIE",
        paper="Yan et al., MobileIE: An Extremely Lightweight and Effective ConvNet for Real-Time "
        "Image Enhancement on Mobile Devices, ICCV 2025",
        licence="Apache-2.0 (as found in a copy)",
        variants={"mobileie": MobileIESizes(channels=12, expansion=4)},
        build=_build,
        peak_values=lambda sizes: 9.5 * sizes.channels,
        halo=6,
        margin=6,
        min_size=1,
        pools_globally=True,
        averages_per_pass=lambda _: (1,),
        objective={"lvw": 1.0, "cosine": 1.0, "psnr": 2.0},
        # 10 epochs of 2,010
        phases={
            "warm-up": Phase(
                share=0.005,
                loss={
                    **{"l1": 1.0, "cosine": 1.0, "input-reconstruction": 1.0},
                    **{"lvw": 0.0, "psnr": 0.0},
                },
                lr=1e-3,
            ),
            "main": Phase(share=0.995),
        },
        batch_statistics=True,
        published=_published,
    )
)
