"""The entries of the terms on likelihoods."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

register(
    Objective(
        name="flow-likelihood",
        description="negative log-likelihood of the reference, bits per pixel",
        paper="Wang et al., LLFlow, AAAI 2022",
        terms="mirnet.objectives.likelihood.terms",
        output=False,
        details=frozenset({"bits", "bits_true_mean"}),
    ),
)
