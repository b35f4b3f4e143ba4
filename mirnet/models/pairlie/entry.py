"""The entry of PairLIE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from torch import Tensor

    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class PairLIESizes(Sizes):
    """Sizes of PairLIE."""

    width: int = Field(ge=4, le=128, description="channels of all feature maps")
    exponent: float = Field(gt=0, le=1, description="of the illumination; lower is brighter")


def _build(**sizes: Any) -> Network:
    from mirnet.models.pairlie.network import PairLIE

    return PairLIE(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.published import PublishedFormat, dimension, plain_weights

    def sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        first = state.get("L_net.L_net.1.weight")
        return None if first is None else {"width": dimension(first), "exponent": 0.2}

    return PublishedFormat(sizes, plain_weights)


register(
    Architecture(
        family="pairlie",
        title="PairLIE",
        paper="Fu et al., Learning a Simple Low-Light Image Enhancer From Paired Low-Light "
        "Instances, CVPR 2023",
        licence="none stated",
        variants={"pairlie": PairLIESizes(width=64, exponent=0.2)},
        build=_build,
        peak_values=lambda sizes: 4.0 * sizes.width,
        halo=10,
        margin=10,
        min_size=2,
        objective={
            "pairlie-reflectance": 1.0,
            "pairlie-retinex": 1.0,
            "pairlie-projection": 500.0,
        },
        details=frozenset({"reflectance", "illumination", "projected", "reflectance_high"}),
        published=_published,
    )
)
