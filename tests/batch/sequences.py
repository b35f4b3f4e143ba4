"""Made sequences: one scene at jittered exposures, another one in between, a bad file."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import PIL.Image

from mirnet.images import Image

HEIGHT, WIDTH = 40, 56
# stops around the first
EXPOSURES = (0.0, 0.8, -0.9, 0.5, -0.6, 1.0, -0.3, 0.7, -1.0, 0.4, -0.8, 0.9)


def scene(seed: int) -> npt.NDArray[np.float64]:
    """Linear light, (H, W, 3): patches with soft edges over three stops."""
    chance = np.random.default_rng(seed)
    stops = PIL.Image.fromarray(chance.uniform(-3, 0, (5, 7)).astype(np.float32))
    smooth = np.asarray(stops.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC), np.float64)
    return 2.0 ** smooth[..., None] * chance.uniform(0.7, 1, 3) * 0.008


def shot(light: npt.NDArray[np.float64], stops: float, *, seed: int, noise: float = 0.004) -> bytes:
    """A dark photograph of a scene as PNG."""
    chance = np.random.default_rng(seed)
    coded = np.clip(light * 2**stops, 0, 1) ** (1 / 2.2) + chance.normal(0, noise, light.shape)
    buffer = io.BytesIO()
    PIL.Image.fromarray((coded.clip(0, 1) * 255).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def sequence(folder: str = "walk") -> dict[str, bytes]:
    """Twelve of one scene; after the fifth one of another scene and a bad file."""
    one, other = scene(1), scene(2)
    images = {f"{folder}/{n:02d}-a.png": shot(one, s, seed=n) for n, s in enumerate(EXPOSURES)}
    images[f"{folder}/04-b.png"] = shot(other, 1.2, seed=50)
    return images | {f"{folder}/04-c.png": images[f"{folder}/00-a.png"][:300]}


def lift(image: Image) -> Image:
    """Stands in for a network: what is exposed more comes out brighter."""
    most = np.iinfo(image.pixels.dtype).max
    pixels = (image.pixels / most) ** 0.6 * most
    return replace(image, pixels=pixels.round().astype(image.pixels.dtype))
