"""Which params and rules decide over what was done: other ones have it done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Self

from mirnet.batch.guard import DECIDING
from mirnet.params import EnhanceParams

DECODER_RULES = 2
"""Raised when files are accepted that were refused before: those are then tried again."""
_OF_ENHANCED = {"strength", "precision"}


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the params that decide over what was done, by how it was done.

    ``output``: what the model made. ``before_guard``: the same by a Mirnet whose digest held
    ``pass_luminance``. ``passed``: what went out as it came, which hangs on the limits of the
    guard as well. ``quarantine``: what was refused.
    """

    output: str
    before_guard: str
    passed: str
    quarantine: str

    @classmethod
    def of(cls, params: EnhanceParams) -> Self:
        """Changing one of these params has the images that it concerns done again."""
        return cls(
            # the form and value of before the guard, so that those outputs stay done
            output=_digest(params, _OF_ENHANCED, pass_luminance=None),
            before_guard=_digest(params, _OF_ENHANCED, pass_luminance=params.pass_luminance),
            passed=_digest(params, _OF_ENHANCED | DECIDING),
            quarantine=_digest(params, {"max_pixels", "max_bytes"}, rules=DECODER_RULES),
        )

    def hold(self, status: str, settings_digest: str) -> bool:
        """Whether what ended so, with these settings, may stay as it is."""
        if status == "quarantined":
            return settings_digest == self.quarantine
        if status == "passed_through":
            return settings_digest == self.passed
        return settings_digest in (self.output, self.before_guard)


def _digest(params: EnhanceParams, names: Set[str], **more: float | None) -> str:
    chosen = params.model_dump(include=set(names)) | more
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]
