"""The term of MobileIE's warm-up: Yan et al., ICCV 2025, section 3.4."""

from __future__ import annotations

from mirnet.objectives.total import Term

TERMS: dict[str, Term] = {
    "input-reconstruction": lambda sample: (
        (sample.details["reconstruction"] - sample.low).abs().mean((1, 2, 3))
    ),
}
