"""The entry of MIRNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class MIRNetSizes(Sizes):
    """Sizes of MIRNet."""

    # any number: the reductions to an eighth round down, as in the published network
    n_feat: int = Field(ge=8, le=256, description="channels at full resolution")
    num_rrg: int = Field(ge=1, le=8, description="recursive residual groups")
    num_msrb: int = Field(ge=1, le=8, description="multi-scale blocks per group")
    num_streams: int = Field(
        3, ge=1, le=3, description="parallel streams of a block, at scales 1, 1/2, 1/4"
    )


def _build(**sizes: int) -> Network:
    from mirnet.models.mirnet.network import MIRNet

    return MIRNet(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.mirnet.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="mirnet",
        title="MIRNet",
        paper="Zamir et al., Learning Enriched Features for Real Image Restoration and "
        "Enhancement, ECCV 2020",
        licence="non-commercial use only",
        variants={
            "mirnet": MIRNetSizes(n_feat=64, num_rrg=3, num_msrb=2),
            "mirnet-s": MIRNetSizes(n_feat=32, num_rrg=2, num_msrb=1),
            "mirnet-xs": MIRNetSizes(n_feat=16, num_rrg=1, num_msrb=1),
        },
        build=_build,
        # maps of n_feat channels: benchmarks/large.py
        peak_values=lambda sizes: 17.0 * sizes.n_feat,
        halo=64,
        margin=16,
        size_multiple=4,
        min_size=8,
        pools_globally=True,
        published=_published,
    )
)
