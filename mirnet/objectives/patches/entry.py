"""The entries of the terms on small patches."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.patches.terms"

register(
    Objective(
        name="llnet-patches",
        description="sum of squared errors of a 17x17 patch, before patches are averaged",
        paper="Lore et al., LLNet, Pattern Recognition 2017",
        terms=TERMS,
        output=False,
        details=frozenset({"patches", "patches_high"}),
    ),
    Objective(
        name="llnet-decay",
        description="sum of squared weights of the hidden layers, times 5e-6",
        paper="Lore et al., LLNet, Pattern Recognition 2017",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"squared_weights"}),
    ),
    Objective(
        name="llnet-sparsity",
        description="divergence of the mean activity of units of the first three layers from 0.2",
        paper="Lore et al., LLNet, Pattern Recognition 2017",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"activity"}),
    ),
)
