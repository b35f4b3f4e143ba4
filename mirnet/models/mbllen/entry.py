"""The entry of MBLLEN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class MBLLENSizes(Sizes):
    """Sizes of MBLLEN."""

    width: int = Field(ge=4, le=128, description="channels of the chain of features")
    blocks: int = Field(ge=1, le=16, description="depths of the chain that are enhanced")


def _build(**sizes: int) -> Network:
    from mirnet.models.mbllen.network import MBLLEN

    return MBLLEN(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.mbllen.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="mbllen",
        title="MBLLEN",
        paper="Lv et al., MBLLEN: Low-Light Image/Video Enhancement Using CNNs, BMVC 2018",
        licence="Apache-2.0",
        variants={
            "mbllen": MBLLENSizes(width=32, blocks=10),
            "mbllen-s": MBLLENSizes(width=16, blocks=3),
        },
        build=_build,
        peak_values=lambda sizes: 4.0 * sizes.width + 3 * sizes.blocks + 64,
        # sees a pixel per block, one more and twelve
        halo=32,
        margin=24,
        min_size=13,
        objective={"l1": 1.0, "ssim": 3.0, "region": 1.0},
        published=_published,
    )
)
