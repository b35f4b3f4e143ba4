"""The entry of IAT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat


class IATSizes(Sizes):
    """Sizes of IAT."""

    width: int = Field(ge=4, le=128, description="channels of the local branch")


def _build(**sizes: int) -> Network:
    from mirnet.models.iat.network import IAT

    return IAT(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.published import same_names

    return same_names("global_net.gamma_base", width=("local_net.conv1.weight", 0))


register(
    Architecture(
        family="iat",
        title="IAT",
        paper="Cui et al., You Only Need 90K Parameters to Adapt Light, BMVC 2022",
        licence="Apache-2.0",
        variants={"iat": IATSizes(width=16)},
        build=_build,
        peak_values=lambda sizes: 12.5 * sizes.width,
        halo=12,
        margin=12,
        size_multiple=4,
        min_size=4,
        pools_globally=True,
        # its softmax over pixels is sharp: estimated, the output of the published weights was
        # darker by up to 36 grey levels
        averages_per_pass=lambda _: (1,),
        objective={"l1": 1.0},
        batch_statistics=True,
        published=_published,
    )
)
