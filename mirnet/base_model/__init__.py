"""The model in the package, for use before a model of one's own is champion.

``model/`` is a model folder as ``mirnet train`` writes one, with a model card. It has no signature:
it is trusted by the digests of its files, which are code (:mod:`mirnet.base_model.released`).
"""

from __future__ import annotations

from pathlib import Path

from mirnet.base_model.released import (
    DATA_DIGEST as DATA_DIGEST,
    FILES as FILES,
    VERSION as VERSION,
)

BASE = "base"
"""Address of the model, in place of a folder or ``models:/NAME@ALIAS``."""

NAME = "mirnet-base"
"""Its name in manifests, lineage and keys of outputs."""

NOTE = "base model, not trained on your data"

FOLDER = Path(__file__).parent / "model"
RECIPE = Path(__file__).parent / "recipe.yaml"
CARD = FOLDER / "MODEL_CARD.md"
