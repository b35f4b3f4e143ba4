"""The entry of Zero-DCE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class ZeroDCESizes(Sizes):
    """Sizes of Zero-DCE."""

    width: int = Field(ge=4, le=128, description="channels of all feature maps")


def _build(**sizes: int) -> Network:
    from mirnet.models.zerodce.network import ZeroDCE

    return ZeroDCE(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.published import same_names

    return same_names("e_conv7.weight", width=("e_conv1.weight", 0))


register(
    Architecture(
        family="zerodce",
        title="Zero-DCE",
        paper="Guo et al., Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement, "
        "CVPR 2020",
        licence="CC BY-NC 4.0",
        variants={"zerodce": ZeroDCESizes(width=32)},
        build=_build,
        peak_values=lambda sizes: 6.6 * sizes.width + 48,
        halo=8,
        margin=8,
        objective={
            "spatial": 1.0,
            "exposure": 10.0,
            "colour-balance": 5.0,
            "curve-smoothness": 200.0,
        },
        details=frozenset({"curves"}),
        published=_published,
    )
)
