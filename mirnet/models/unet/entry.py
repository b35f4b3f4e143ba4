"""The entry of U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from torch import Tensor

    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class UNetSizes(Sizes):
    """Sizes of U-Net; its five levels have 1 to 16 times ``width`` channels."""

    width: int = Field(ge=2, le=128, multiple_of=2, description="channels at full resolution")
    bilinear: bool = Field(description="whether maps are enlarged by interpolation")
    residual: bool = Field(description="whether the output is added to the image")


def _build(**sizes: Any) -> Network:
    from mirnet.models.unet.network import UNet

    return UNet(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.published import PublishedFormat, dimension, plain_weights

    def sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        first = state.get("inc.double_conv.0.weight")
        if first is None or "outc.conv.weight" not in state:
            return None
        bilinear = "up1.up.weight" not in state
        return {"width": dimension(first), "bilinear": bilinear, "residual": False}

    return PublishedFormat(sizes, plain_weights)


register(
    Architecture(
        family="unet",
        title="U-Net",
        paper="Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image "
        "Segmentation, MICCAI 2015",
        licence=None,
        variants={
            "unet": UNetSizes(width=64, bilinear=False, residual=True),
            "unet-s": UNetSizes(width=16, bilinear=False, residual=True),
        },
        build=_build,
        peak_values=lambda sizes: 9.3 * sizes.width,
        halo=96,
        margin=32,
        size_multiple=16,
        min_size=16,
        aligned_corners=True,
        objective={"l1": 1.0},
        batch_statistics=True,
        published=_published,
    )
)
