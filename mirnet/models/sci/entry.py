"""The entry of SCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Phase, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class SCISizes(Sizes):
    """Sizes of SCI."""

    width: int = Field(ge=1, le=64, description="channels of the feature maps")


def _build(**sizes: int) -> Network:
    from mirnet.models.sci.network import SCI

    return SCI(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.sci.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="sci",
        title="SCI",
        paper="Ma et al., Toward Fast, Flexible, and Robust Low-Light Image Enhancement, CVPR 2022",
        licence="MIT",
        variants={"sci": SCISizes(width=3)},
        build=_build,
        peak_values=lambda sizes: 5.0 * sizes.width + 10,
        halo=4,
        margin=4,
        objective={"sci-fidelity": 1.5, "sci-smoothness": 1.0},
        phases={"self-calibrated": Phase(share=1.0)},
        details=frozenset({"illuminations", "stage_inputs"}),
        batch_statistics=True,
        published=_published,
    )
)
