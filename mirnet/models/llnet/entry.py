"""The entry of LLNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from mirnet.models.registry import Architecture, Sizes, register

if TYPE_CHECKING:
    from mirnet.models.network import Network
    from mirnet.models.published import PublishedFormat

_Width = Annotated[int, Field(ge=4, le=4096)]
_PATCH = 3 * 17**2
_PIXELS = 3**2  # per patch


class LLNetSizes(Sizes):
    """Sizes of LLNet."""

    hidden: tuple[_Width, _Width, _Width, _Width, _Width] = Field(
        description="values per patch behind each hidden layer"
    )


def _build(**sizes: Any) -> Network:
    from mirnet.models.llnet.network import LLNet

    return LLNet(**sizes)


def _published() -> PublishedFormat:
    from mirnet.models.llnet.published import FORMAT

    return FORMAT


register(
    Architecture(
        family="llnet",
        title="LLNet",
        paper="Lore et al., LLNet: A deep autoencoder approach to natural low-light image "
        "enhancement, Pattern Recognition 61, 2017",
        licence="none stated",
        variants={
            "llnet": LLNetSizes(hidden=(2000, 1900, 1800, 1900, 2000)),
            "llnet-s": LLNetSizes(hidden=(256, 192, 128, 192, 256)),
        },
        build=_build,
        peak_values=lambda sizes: (2 * max(sizes.hidden) + 3 * _PATCH) / _PIXELS + 18,
        halo=18,
        margin=18,
        size_multiple=3,
        min_size=18,
        objective={"llnet-patches": 1.0, "llnet-decay": 1.0},
        details=frozenset({"patches", "patches_high", "squared_weights", "activity"}),
        published=_published,
    )
)
