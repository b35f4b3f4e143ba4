"""The entry of MIRNet-v2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class MIRNetV2Sizes(Sizes):
    # what the grouped convolutions divide
    n_feat: int = Field(ge=16, le=256, multiple_of=16, description="channels at full resolution")
    num_rrg: int = Field(ge=1, le=8, description="recursive residual groups")
    num_msrb: int = Field(ge=1, le=8, description="multi-scale blocks per group")


def _build(**sizes: int) -> Network:
    from mirnet.models.mirnet_v2.network import MIRNetV2

    return MIRNetV2(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.mirnet_v2.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="mirnet-v2",
        title="MIRNet-v2",
        paper="Zamir et al., Learning Enriched Features for Fast Image Restoration and "
        "Enhancement, TPAMI 2022",
        licence="non-commercial use only",
        variants={
            "mirnet-v2": MIRNetV2Sizes(n_feat=80, num_rrg=4, num_msrb=2),
        },
        build=_build,
        # maps of n_feat channels: benchmarks/large.py
        peak_values=lambda sizes: 13.0 * sizes.n_feat,
        halo=64,
        margin=16,
        size_multiple=4,
        min_size=4,
        pools_globally=True,
        published=_published,
    )
)
