"""The entries of the terms of SCI."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.sci.terms"

register(
    Objective(
        name="sci-fidelity",
        description="squared difference of illumination and input, summed over the stages",
        paper="Ma et al., SCI, CVPR 2022",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"illuminations", "stage_inputs"}),
    ),
    Objective(
        name="sci-smoothness",
        description="differences in the illumination within 5x5 pixels, summed over the stages",
        paper="Ma et al., SCI, CVPR 2022",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"illuminations", "stage_inputs"}),
    ),
)
