"""The entries of the terms against a reference."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.supervised.terms"

register(
    Objective(
        name="charbonnier",
        description="mean of sqrt(d^2 + eps^2)",
        paper="Zamir et al., MIRNet, ECCV 2020",
        terms=TERMS,
    ),
    Objective(
        name="aligned",
        description="charbonnier after scaling the output to the mean of the reference",
        paper="Liao et al., GT-Mean Loss, arXiv:2507.20148, 2025",
        terms=TERMS,
    ),
    Objective(
        name="l1",
        description="mean absolute difference",
        paper="none",
        terms=TERMS,
    ),
    Objective(
        name="l2",
        description="mean squared difference",
        paper="none",
        terms=TERMS,
    ),
    Objective(
        name="ssim",
        description="1 - SSIM",
        paper="Wang et al., IEEE TIP 2004",
        terms=TERMS,
    ),
    Objective(
        name="edge",
        description="Charbonnier of the Laplacians",
        paper="Zamir et al., MPRNet, CVPR 2021",
        terms=TERMS,
    ),
    Objective(
        name="frequency",
        description="mean absolute difference of the spectra",
        paper="Cho et al., MIMO-UNet, ICCV 2021",
        terms=TERMS,
    ),
    Objective(
        name="psnr",
        description="(50 - PSNR) / 100",
        paper="Yan et al., MobileIE, ICCV 2025",
        terms=TERMS,
    ),
    Objective(
        name="lvw",
        description="mean absolute difference, weighted by its distance from the mean one",
        paper="Yan et al., MobileIE, ICCV 2025",
        terms=TERMS,
    ),
    Objective(
        name="hvi",
        description="mean absolute difference in the colour space HVI",
        paper="Yan et al., HVI-CIDNet, CVPR 2025",
        terms=TERMS,
    ),
    Objective(
        name="hvi-ssim",
        description="1 - SSIM in the colour space HVI",
        paper="Yan et al., HVI-CIDNet, CVPR 2025",
        terms=TERMS,
    ),
    Objective(
        name="pyramid-edge",
        description="mean squared difference of the first level of Laplacian pyramids",
        paper="Yan et al., HVI-CIDNet, CVPR 2025",
        terms=TERMS,
    ),
    Objective(
        name="hvi-pyramid-edge",
        description="the same in the colour space HVI",
        paper="Yan et al., HVI-CIDNet, CVPR 2025",
        terms=TERMS,
    ),
    Objective(
        name="cosine",
        description="1 - cosine of the angle between colours",
        paper="Yan et al., MobileIE, ICCV 2025",
        terms=TERMS,
    ),
)
