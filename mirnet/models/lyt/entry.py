"""The entry of LYT-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class LYTNetSizes(Sizes):
    """Sizes of LYT-Net; the denoisers of colour have half of the channels."""

    width: int = Field(ge=16, le=128, multiple_of=16, description="channels of all feature maps")


def _build(**sizes: int) -> Network:
    from mirnet.models.lyt.network import LYTNet

    return LYTNet(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.published import same_names

    return same_names("denoiser_cb.conv1.weight", width=("ref_conv.weight", 0))


register(
    Architecture(
        family="lyt",
        title="LYT-Net",
        paper="Brateanu et al., LYT-NET: Lightweight YUV Transformer-based Network for Low-light "
        "Image Enhancement, IEEE Signal Processing Letters 2025",
        licence="MIT (code); none stated for the weights",
        variants={"lyt": LYTNetSizes(width=32)},
        build=_build,
        peak_values=lambda sizes: 8.0 * sizes.width,
        halo=16,
        margin=16,
        size_multiple=8,
        min_size=8,
        tiled=False,
        objective={
            **{"smooth-l1": 1.0, "histogram": 0.05, "ms-ssim": 0.5, "brightness": 0.25},
            "psnr": 0.83,  # a hundredth of what is missing to 50 dB; 0.0083 per dB
        },
        published=_published,
    )
)
