"""The entries of the terms that weigh regions."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.region.terms"

register(
    Objective(
        name="region",
        description="mean absolute difference, four times on the darkest 40 % of the reference",
        paper="Lv et al., MBLLEN, BMVC 2018",
        terms=TERMS,
    ),
)
