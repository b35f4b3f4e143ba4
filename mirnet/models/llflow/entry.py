"""The entry of LLFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class LLFlowSizes(Sizes):
    """Sizes of LLFlow."""

    width: int = Field(ge=4, le=128, description="channels of the encoder")
    growth: int = Field(ge=4, le=64, description="channels that a layer of a dense block adds")
    blocks: int = Field(ge=2, le=32, description="blocks of the encoder")
    kept: int = Field(ge=1, le=8, description="blocks whose features condition the flow")
    steps: int = Field(ge=1, le=16, description="steps with coupling per level of the flow")
    hidden: int = Field(ge=4, le=128, description="channels inside of the couplings")

    @model_validator(mode="after")
    def _enough_blocks(self) -> Self:
        if self.blocks < 2 * self.kept:
            raise ValueError("every second block is kept, so twice as many blocks are needed")
        return self


def _build(**sizes: int) -> Network:
    from mirnet.models.llflow.network import LLFlow

    return LLFlow(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.llflow.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="llflow",
        title="LLFlow",
        paper="Wang et al., Low-Light Image Enhancement with Normalizing Flow, AAAI 2022",
        licence="CC BY-NC-SA 4.0, academic research only",
        variants={
            "llflow": LLFlowSizes(width=64, growth=32, blocks=24, kept=4, steps=12, hidden=64),
            "llflow-s": LLFlowSizes(width=32, growth=32, blocks=4, kept=1, steps=4, hidden=64),
        },
        build=_build,
        peak_values=lambda sizes: 6.0 * sizes.width + 2.0 * sizes.kept * sizes.width + 96,
        halo=96,
        margin=16,
        size_multiple=8,
        min_size=8,
        pools_globally=True,
        averages_per_pass=lambda _: (1,),
        objective={"flow-likelihood": 1.0},
        details=frozenset({"bits", "bits_true_mean"}),
        # the inverse of the flow amplifies rounding
        bf16=False,
        exports=frozenset({"pt2", "onnx"}),
        published=_published,
    )
)
