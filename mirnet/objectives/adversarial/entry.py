"""The entry of the adversarial term."""

from __future__ import annotations

from mirnet.objectives.registry import Objective, register

register(
    Objective(
        name="adversarial",
        description="squared distance of a patch discriminator's scores from those of a real "
        "image; the discriminator is trained with the network",
        paper="Isola et al., pix2pix, CVPR 2017; Mao et al., LSGAN, ICCV 2017",
        terms="mirnet.objectives.adversarial.terms",
        discriminator=True,
    ),
)
