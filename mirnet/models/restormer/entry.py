"""The entry of Restormer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from mirnet.models.registry import Architecture, Sizes, in_chain, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat

_Count = Annotated[int, Field(ge=1, le=32)]
_Four = tuple[_Count, _Count, _Count, _Count]


class RestormerSizes(Sizes):
    """Sizes of Restormer; its four levels have 1, 2, 4 and 8 times ``dim`` channels."""

    dim: int = Field(ge=4, le=128, multiple_of=2, description="channels at full resolution")
    num_blocks: _Four = Field(description="transformer blocks per level")
    heads: _Four = Field(description="heads of attention per level")
    refinement: int = Field(ge=1, le=32, description="blocks behind the decoder")
    biased_norm: bool = Field(description="whether normalisation subtracts the mean and has a bias")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if any(self.dim * 2**level % heads for level, heads in enumerate(self.heads)):
            raise ValueError("the heads of a level divide its channels")
        return self


def _build(**sizes: Any) -> Network:
    from mirnet.models.restormer.network import Restormer

    return Restormer(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.restormer.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="restormer",
        title="Restormer",
        paper="Zamir et al., Restormer: Efficient Transformer for High-Resolution Image "
        "Restoration, CVPR 2022",
        licence="non-commercial use only",
        variants={
            "restormer": RestormerSizes(
                dim=48,
                num_blocks=(4, 6, 6, 8),
                heads=(1, 2, 4, 8),
                refinement=4,
                biased_norm=True,
            ),
            "restormer-s": RestormerSizes(
                dim=16,
                num_blocks=(1, 1, 1, 2),
                heads=(1, 2, 4, 8),
                refinement=1,
                biased_norm=True,
            ),
        },
        build=_build,
        peak_values=lambda sizes: 33.0 * sizes.dim,
        halo=64,
        margin=16,
        size_multiple=8,
        min_size=8,
        pools_globally=True,
        averages_per_pass=lambda sizes: in_chain(
            # the upper levels are there on the way down and on the way up
            2 * sum(sizes.num_blocks[:3]) + sizes.num_blocks[3] + sizes.refinement
        ),
        objective={"l1": 1.0},
        published=_published,
    )
)
