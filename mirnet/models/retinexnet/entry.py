"""The entry of RetinexNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Phase, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class RetinexNetSizes(Sizes):
    """Sizes of RetinexNet."""

    width: int = Field(ge=4, le=128, description="channels of all feature maps")


def _build(**sizes: int) -> Network:
    from mirnet.models.retinexnet.network import RetinexNet

    return RetinexNet(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.retinexnet.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="retinexnet",
        title="RetinexNet",
        paper="Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018",
        licence="MIT",
        variants={
            "retinexnet": RetinexNetSizes(width=64),
            "retinexnet-s": RetinexNetSizes(width=16),
        },
        build=_build,
        peak_values=lambda sizes: 9.2 * sizes.width,
        halo=40,
        margin=16,
        size_multiple=8,
        min_size=8,
        objective={
            "retinex-reconstruction": 1.0,
            "retinex-exchange": 0.001,
            "retinex-reflectance": 0.01,
            "retinex-smoothness": 0.1,
            "retinex-relight": 1.0,
            "retinex-relight-smoothness": 3.0,
        },
        phases={
            "decomposition": Phase(
                share=0.5,
                loss={"retinex-relight": 0, "retinex-relight-smoothness": 0},
                trains=("DecomNet.",),
            ),
            "relighting": Phase(
                share=0.5,
                loss={
                    "retinex-reconstruction": 0,
                    "retinex-exchange": 0,
                    "retinex-reflectance": 0,
                    "retinex-smoothness": 0,
                },
                trains=("RelightNet.",),
            ),
        },
        details=frozenset(
            {"reflectance", "illumination", "reflectance_high", "illumination_high", "relit"}
        ),
        published=_published,
    )
)
