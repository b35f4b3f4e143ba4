"""The entry of the term on the input itself."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

register(
    Objective(
        name="input-reconstruction",
        description="mean absolute difference of a second output and the input; in the warm-up "
        "of MobileIE",
        paper="Yan et al., MobileIE, ICCV 2025",
        terms="mirnet.objectives.reconstruction.terms",
        reference=False,
        output=False,
        details=frozenset({"reconstruction"}),
    ),
)
