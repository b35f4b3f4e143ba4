"""Safety checks of a batch: inputs that are bright enough and outputs that are worse than their
input. In both cases the input is passed through.
"""

from __future__ import annotations

from mirnet.images.brightness import share_of_output
from mirnet.images.harm import HarmLimits, Kind
from mirnet.params import EnhanceParams

BRIGHT = "bright"
"""The reason of a row whose image was passed through before the model."""
HARM = "harm"
"""Prefix of the reason of a row whose output was rejected: ``harm: darker``."""
_PARAMS: dict[Kind, str] = {
    "darker": "max_darkening",
    "dimmed": "max_dimmed_share",
    "order": "max_order_loss",
    "tinted": "max_tint",
    "clipped": "max_added_clipping",
    "noisier": "max_added_noise",
}
DECIDING = frozenset({"pass_luminance", *_PARAMS.values()})
"""The params used by this module."""


def harm_limits(params: EnhanceParams) -> HarmLimits:
    """The limits for :mod:`mirnet.images.harm`."""
    limits = {kind: getattr(params, name) for kind, name in _PARAMS.items()}
    return {kind: limit for kind, limit in limits.items() if limit is not None}


def is_bright(shadows: float, params: EnhanceParams) -> bool:
    """Whether an image with these :func:`mirnet.images.stats.shadows` is passed through."""
    return share_of_output(shadows, params.pass_luminance) == 0


def harm_kind(reason: str | None) -> str | None:
    """The kind of harm in the reason of a row; none for another reason."""
    begin, _, kind = (reason or "").partition(": ")
    return kind if begin == HARM else None
