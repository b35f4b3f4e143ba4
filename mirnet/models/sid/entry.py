"""The entry of SID's U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class SIDSizes(Sizes):
    """Sizes of SID's U-Net; its five levels have 1 to 16 times ``width`` channels."""

    width: int = Field(ge=2, le=128, description="channels at full resolution")


def _build(**sizes: int) -> Network:
    from mirnet.models.sid.network import SID

    return SID(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.sid.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="sid",
        title="SID",
        paper="Chen et al., Learning to See in the Dark, CVPR 2018",
        licence="MIT (code); none stated for the weights",
        variants={"sid": SIDSizes(width=32), "sid-s": SIDSizes(width=8)},
        build=_build,
        peak_values=lambda sizes: 8.0 * sizes.width,
        halo=96,
        margin=32,
        size_multiple=16,
        min_size=16,
        objective={"l1": 1.0},
        published=_published,
    )
)
