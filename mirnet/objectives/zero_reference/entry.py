"""The entries of the terms of Zero-DCE."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.zero_reference.terms"

register(
    Objective(
        name="spatial",
        description="differences between neighbouring 4x4 blocks against those of the input",
        paper="Guo et al., Zero-DCE, CVPR 2020",
        terms=TERMS,
        reference=False,
    ),
    Objective(
        name="exposure",
        description="squared distance of the mean of 16x16 blocks from 0.6",
        paper="Guo et al., Zero-DCE, CVPR 2020",
        terms=TERMS,
        reference=False,
    ),
    Objective(
        name="colour-balance",
        description="distance between the mean values of the channels",
        paper="Guo et al., Zero-DCE, CVPR 2020",
        terms=TERMS,
        reference=False,
    ),
    Objective(
        name="curve-smoothness",
        description="squared differences of neighbouring values of the curves",
        paper="Guo et al., Zero-DCE, CVPR 2020",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"curves"}),
    ),
)
