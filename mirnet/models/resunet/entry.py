"""The entry of the residual U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network


class ResUNetSizes(Sizes):
    """Sizes of the residual U-Net; each level has twice the channels of the one above."""

    width: int = Field(ge=2, le=256, multiple_of=2, description="channels of the first level")
    num_levels: int = Field(3, ge=2, le=4, description="levels, each at half the size")
    num_blocks: int = Field(1, ge=1, le=8, description="residual blocks per level and direction")
    shuffle: Literal[1, 2] = Field(
        1, description="space to depth: the factor by which the first level is smaller"
    )


def _build(**sizes: int) -> Network:
    from mirnet.models.resunet.network import ResUNet

    return ResUNet(**sizes)


register(
    Architecture(
        family="resunet",
        title="Residual U-Net",
        paper="none: of this project, from published parts",
        licence=None,
        variants={
            "resunet": ResUNetSizes(width=40, num_blocks=2),
            "resunet-s": ResUNetSizes(width=16),
        },
        build=_build,
        peak_values=lambda sizes: 4.0 * sizes.width,
        halo=128,
        margin=32,
        size_multiple=16,
        min_size=16,
        pools_globally=True,
        averages_per_pass=lambda _: (1, 1),
        objective={"charbonnier": 0.5, "aligned": 0.5, "psnr": 1.0, "ssim": 1.0},
    )
)
