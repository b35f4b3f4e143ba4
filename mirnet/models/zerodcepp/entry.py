"""The entry of Zero-DCE++."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from torch import Tensor

    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class ZeroDCEPlusPlusSizes(Sizes):
    """Sizes of Zero-DCE++."""

    width: int = Field(ge=4, le=128, description="channels of all feature maps")
    # those that divide the multiple of the input's sizes
    scale: Literal[1, 2, 3, 4, 6, 12] = Field(
        description="height of the image over that of the copy that the curves are estimated on"
    )


def _build(**sizes: Any) -> Network:
    from mirnet.models.zerodcepp.network import ZeroDCEPlusPlus

    return ZeroDCEPlusPlus(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.published import PublishedFormat, dimension, plain_weights

    def sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        first = state.get("e_conv1.point_conv.weight")
        # no tensor depends on the scale: that of the published training
        return None if first is None else {"width": dimension(first), "scale": 1}

    return PublishedFormat(sizes, plain_weights)


register(
    Architecture(
        family="zerodcepp",
        title="Zero-DCE++",
        paper="Li et al., Learning to Enhance Low-Light Image via Zero-Reference Deep Curve "
        "Estimation, TPAMI 2021",
        licence="CC BY-NC 4.0",
        variants={
            "zerodcepp": ZeroDCEPlusPlusSizes(width=32, scale=1),
            "zerodcepp-s": ZeroDCEPlusPlusSizes(width=32, scale=12),
        },
        build=_build,
        peak_values=lambda sizes: 8.0 * sizes.width / sizes.scale**2 + 32,
        halo=96,
        margin=24,
        size_multiple=12,
        min_size=12,
        aligned_corners=True,
        objective={
            "spatial": 1.0,
            "exposure": 10.0,
            "colour-balance": 5.0,
            "curve-smoothness": 1600.0,
        },
        details=frozenset({"curves"}),
        published=_published,
    )
)
