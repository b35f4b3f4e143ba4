"""The entry of the perceptual term."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

register(
    Objective(
        name="perceptual",
        description="mean squared difference of VGG features, in four blocks; needs "
        "`train.perceptual_weights`",
        paper="Johnson et al., ECCV 2016; Yan et al., HVI-CIDNet, CVPR 2025",
        terms="mirnet.objectives.perceptual.terms",
        features=True,
    ),
)
