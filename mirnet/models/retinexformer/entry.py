"""The entry of Retinexformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, in_chain, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat

_Count = Annotated[int, Field(ge=1, le=16)]


class RetinexformerSizes(Sizes):
    """Sizes of Retinexformer; its three levels have 1, 2 and 4 times ``n_feat`` channels."""

    # the illumination estimator has convolutions in four groups
    n_feat: int = Field(ge=4, le=128, multiple_of=4, description="channels at full resolution")
    stages: int = Field(ge=1, le=4, description="networks in a chain")
    num_blocks: tuple[_Count, _Count, _Count] = Field(description="attention blocks per level")


def _build(**sizes: Any) -> Network:
    from mirnet.models.retinexformer.network import Retinexformer

    return Retinexformer(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.retinexformer.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="retinexformer",
        title="Retinexformer",
        paper="Cai et al., Retinexformer: One-stage Retinex-based Transformer for Low-light Image "
        "Enhancement, ICCV 2023",
        licence="MIT (code); none stated for the weights",
        variants={
            "retinexformer": RetinexformerSizes(n_feat=40, stages=1, num_blocks=(1, 2, 2)),
            "retinexformer-s": RetinexformerSizes(n_feat=16, stages=1, num_blocks=(1, 1, 1)),
        },
        build=_build,
        peak_values=lambda sizes: 16.0 * sizes.n_feat,
        halo=64,
        margin=16,
        size_multiple=4,
        min_size=4,
        pools_globally=True,
        averages_per_pass=lambda sizes: in_chain(
            # the upper levels are there on the way down and on the way up
            sizes.stages * (2 * sum(sizes.num_blocks[:2]) + sizes.num_blocks[2])
        ),
        objective={"l1": 1.0},
        published=_published,
    )
)
