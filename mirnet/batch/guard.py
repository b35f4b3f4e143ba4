"""No picture is spoilt: which pictures the model is not asked about, and which of its outputs are
not written. Both leave the input as it came.
"""

from __future__ import annotations

from mirnet.images.harm import HarmLimits
from mirnet.params import EnhanceParams

BRIGHT = "bright"
"""The reason of a row whose picture was passed through before the model."""
HARM = "harm"
"""Begins the reason of a row whose picture the model would have spoilt: ``harm: darker``."""
_PARAMS = {
    "darker": "max_darkening",
    "dimmed": "max_dimmed_share",
    "order": "max_order_loss",
    "tinted": "max_tint",
    "clipped": "max_added_clipping",
    "noisier": "max_added_noise",
}
DECIDING = frozenset({"pass_luminance", *_PARAMS.values()})
"""The params that this module goes by."""


def harm_limits(params: EnhanceParams) -> HarmLimits:
    """The limits as :mod:`mirnet.images.harm` takes them."""
    return HarmLimits(**{kind: getattr(params, name) for kind, name in _PARAMS.items()})


def is_bright(shadows: float, params: EnhanceParams) -> bool:
    """Whether a picture with such :func:`mirnet.images.stats.shadows` stays as it is."""
    limit = params.pass_luminance
    return limit is not None and shadows >= limit


def harm_kind(reason: str | None) -> str | None:
    """Of the reason of a row: the kind of harm; none where it is another reason."""
    begin, _, kind = (reason or "").partition(": ")
    return kind if begin == HARM else None
