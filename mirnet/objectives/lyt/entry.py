"""The entries of the terms of LYT-Net."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.lyt.terms"

register(
    Objective(
        name="smooth-l1",
        description="half the squared difference, linear beyond a difference of 1",
        paper="Brateanu et al., LYT-Net, IEEE SPL 2025",
        terms=TERMS,
    ),
    Objective(
        name="brightness",
        description="absolute difference of the mean values",
        paper="Brateanu et al., LYT-Net, IEEE SPL 2025",
        terms=TERMS,
    ),
    Objective(
        name="histogram",
        description="mean absolute difference of soft histograms with 256 levels",
        paper="Brateanu et al., LYT-Net, IEEE SPL 2025",
        terms=TERMS,
    ),
    Objective(
        name="ms-ssim",
        description="1 - SSIM over up to five scales, as many as the patch allows",
        paper="Wang et al., Asilomar 2003; Brateanu et al., LYT-Net, IEEE SPL 2025",
        terms=TERMS,
    ),
)
