"""Digests of the params and rules that affect results: if they change, images are redone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Self

from mirnet.batch.guard import DECIDING
from mirnet.params import EnhanceParams

DECODER_RULES = 2
"""Increased when files are accepted that were refused before, so that they are tried again."""
_OF_ENHANCED = {"strength", "precision"}
_LATER = {"exposure", "denoise", "even"}
"""Params of enhanced images that came later: in a digest only if they are not the default, so that
outputs of before count as done."""


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the params that affect a result, by kind of result.

    ``output``: enhanced images. ``before_guard``: the same of versions whose digest included
    ``pass_luminance``. ``passed``: images passed through, which depend on the limits of the
    safety checks as well. ``quarantine``: refused images.
    """

    output: str
    before_guard: str
    passed: str
    quarantine: str

    @classmethod
    def of(cls, params: EnhanceParams) -> Self:
        """A change of one of these params causes the affected images to be redone."""
        later = {name for name in _LATER if getattr(params, name) != _default(name)}
        return cls(
            # form and value from before the safety checks, so that those outputs count as done
            output=_digest(params, _OF_ENHANCED | later, pass_luminance=None),
            before_guard=_digest(
                params, _OF_ENHANCED | later, pass_luminance=params.pass_luminance
            ),
            passed=_digest(params, _OF_ENHANCED | DECIDING),
            quarantine=_digest(params, {"max_pixels", "max_bytes"}, rules=DECODER_RULES),
        )

    def hold(self, status: str, settings_digest: str) -> bool:
        """Whether a result of this status and these settings still counts as done."""
        if status == "quarantined":
            return settings_digest == self.quarantine
        if status == "passed_through":
            return settings_digest == self.passed
        return settings_digest in (self.output, self.before_guard)


def _digest(params: EnhanceParams, names: Set[str], **more: float | None) -> str:
    chosen = params.model_dump(include=set(names)) | more
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def _default(name: str) -> object:
    return EnhanceParams.model_fields[name].default
