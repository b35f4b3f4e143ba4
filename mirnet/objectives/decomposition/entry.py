"""The entries of the terms of decompositions."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

TERMS = "mirnet.objectives.decomposition.terms"

register(
    Objective(
        name="retinex-reconstruction",
        description="reflectance times illumination against the image, for low and high",
        paper="Wei et al., RetinexNet, BMVC 2018",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "illumination", "reflectance_high", "illumination_high"}),
    ),
    Objective(
        name="retinex-exchange",
        description="reflectance times illumination of the other image against that, both ways",
        paper="Wei et al., RetinexNet, BMVC 2018",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "illumination", "reflectance_high", "illumination_high"}),
    ),
    Objective(
        name="retinex-reflectance",
        description="mean absolute difference of both reflectances",
        paper="Wei et al., RetinexNet, BMVC 2018",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "reflectance_high"}),
    ),
    Objective(
        name="retinex-smoothness",
        description="gradients of both illuminations, less at edges of the reflectance",
        paper="Wei et al., RetinexNet, BMVC 2018",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "illumination", "reflectance_high", "illumination_high"}),
    ),
    Objective(
        name="retinex-relight",
        description="reflectance times the corrected illumination against the reference",
        paper="Wei et al., RetinexNet, BMVC 2018",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "relit"}),
    ),
    Objective(
        name="retinex-relight-smoothness",
        description="gradients of the corrected illumination, less at edges of the reflectance",
        paper="Wei et al., RetinexNet, BMVC 2018",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "relit"}),
    ),
    Objective(
        name="pairlie-reflectance",
        description="mean squared difference of the reflectances of two exposures",
        paper="Fu et al., PairLIE, CVPR 2023",
        terms=TERMS,
        output=False,
        details=frozenset({"reflectance", "reflectance_high"}),
    ),
    Objective(
        name="pairlie-retinex",
        description="decomposition of the projected image, and its illumination",
        paper="Fu et al., PairLIE, CVPR 2023",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"reflectance", "illumination", "projected"}),
    ),
    Objective(
        name="pairlie-projection",
        description="mean squared difference of image and projected image",
        paper="Fu et al., PairLIE, CVPR 2023",
        terms=TERMS,
        reference=False,
        output=False,
        details=frozenset({"projected"}),
    ),
)
