"""Draws the strip of exposure, strength and denoise of `docs/inference.md`: a darkened sample
photograph, enhanced by the model in the package. ``python docs/taste_strip.py``."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from mirnet.base_model import FOLDER
from mirnet.data.samples import PHOTOGRAPHS, make_sample_data
from mirnet.images import Pixels, read_rgb
from mirnet.inference import Enhancer

TARGET = Path(__file__).parent / "images" / "taste.jpg"
# one row per option
CHOICES: tuple[tuple[dict[str, Any], ...], ...] = (
    tuple({"exposure": value} for value in ("-1", "-0.5", "auto", "+0.5", "+1")),
    tuple({"strength": value} for value in (0.0, 0.5, 1.0, 1.25, 1.5)),
    tuple({"denoise": value} for value in (1.0, 0.75, 0.5, 0.25, 0.0)),
)
SIDE = 180
# the part of the image in the row of denoise
DETAIL = np.s_[100:190, 90:180]
GAP = 4


def dark_photograph() -> Pixels:
    """Made from a photograph that the model was not trained on."""
    coffee = next(photo for photo in PHOTOGRAPHS if photo.name == "coffee")
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_sample_data(
            Path(folder) / "data",
            num_train=1,
            num_eval=1,
            photographs=[replace(coffee, split="our485"), coffee],
        )
        return read_rgb(pairs[-1].low_path)


def draw(target: Path) -> None:
    """One row per option, one column per value."""
    low, enhancer = dark_photograph(), Enhancer.load(FOLDER, precision="float32", compile=False)
    step = SIDE + GAP
    sheet = PIL.Image.new("RGB", (5 * step - GAP, 3 * step - GAP), "white")
    for row, choices in enumerate(CHOICES):
        for column, choice in enumerate(choices):
            pixels = enhancer(low, **choice)
            shown = pixels[DETAIL] if "denoise" in choice else pixels
            cell = PIL.Image.fromarray(shown).resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
            sheet.paste(cell, (column * step, row * step))
    sheet.save(target, quality=88)


if __name__ == "__main__":
    draw(TARGET)
