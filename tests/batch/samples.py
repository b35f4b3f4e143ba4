"""Dark images, a stand-in for the model, and a way to fill a store."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image

from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult, ModelRef
from mirnet.storage.places import open_store

# for networks that have learned nothing: each of their outputs is written
UNGUARDED: dict[str, Any] = {
    "pass_luminance": None,
    "max_darkening": None,
    "max_dimmed_share": None,
    "max_order_loss": None,
    "max_tint": None,
    "max_added_clipping": None,
    "max_added_noise": None,
}
MODEL = ModelRef("mirnet", "3", "run-1", "d" * 32 + ".dir", "c0ffee")


def picture(seed: int = 0, *, side: int = 32, format: str = "PNG", level: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, level, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format=format)
    return buffer.getvalue()


def double(image: Image) -> Image:
    """Stands in for the model: deterministic and quick."""
    pixels = np.minimum(image.pixels.astype(np.uint32) * 2, np.iinfo(image.pixels.dtype).max)
    return replace(image, pixels=pixels.astype(image.pixels.dtype))


def darken(image: Image) -> Image:
    """Stands in for a model that spoils images."""
    return replace(image, pixels=image.pixels // 2)


def enhance_batch(
    source: str,
    target: str,
    settings: Settings | None = None,
    model: ModelRef = MODEL,
    *,
    enhance: Callable[[Image], Image] = double,
    **params: Any,
) -> EnhanceResult:
    """A batch with a stand-in for the model."""
    return run_batch(
        source,
        target,
        enhance=enhance,
        model=model,
        params=EnhanceParams(**params),
        settings=settings or Settings(),
    )


def fill(uri: str, objects: dict[str, bytes]) -> None:
    store = open_store(uri, Settings())
    for key, data in objects.items():
        store.put(key, data)
