"""Synthesis of a dark, noisy image from a well-lit photograph with a camera model.

Unprocess to linear light, darken, add shot and read noise, develop again (Brooks et al.,
"Unprocessing images for learned raw denoising", CVPR 2019, section 3; Cui et al., "Multitask AET
with orthogonal tangent regularity for dark object detection", ICCV 2021, section 3.2).
"""

from __future__ import annotations

import io
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator

from mirnet.params import Section

Pixels = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]


class DegradationRanges(Section):
    """Ranges of the parameters of a pair. Defaults as published."""

    exposure: tuple[float, float] = Field(
        (0.02, 0.4), description="factor on linear light, log-uniform"
    )
    gamma: tuple[float, float] = Field((2.0, 2.6), description="display gamma, uniform")
    shot_noise: tuple[float, float] = Field(
        (1e-4, 1.2e-2), description="variance per unit of signal, log-uniform"
    )
    red_gain: tuple[float, float] = Field((1.9, 2.4), description="white balance, uniform")
    blue_gain: tuple[float, float] = Field((1.5, 1.9), description="white balance, uniform")
    white_balance_jitter: float = Field(
        0.15, ge=0, lt=1, description="relative error of the gains of the camera"
    )
    jpeg_share: float = Field(0.0, ge=0, le=1, description="share of lows compressed as JPEG")
    jpeg_quality: tuple[int, int] = Field((60, 95), description="JPEG quality of those")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        names = ("exposure", "gamma", "shot_noise", "red_gain", "blue_gain", "jpeg_quality")
        for name in names:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: give a lower and an upper bound above 0")
        return self


class Degradation(Section):
    """The parameters of one synthetic pair."""

    exposure: float
    gamma: float
    shot_noise: float
    read_noise: float = Field(description="variance")
    red_gain: float
    blue_gain: float
    red_error: float = Field(description="factor on the red gain when developing")
    blue_error: float
    jpeg_quality: int | None


def draw(ranges: DegradationRanges, rng: np.random.Generator) -> Degradation:
    shot = _log_uniform(rng, ranges.shot_noise)
    # the line through measured cameras: Brooks et al. 2019, figure 4
    read = np.exp(2.18 * np.log(shot) + 1.20 + rng.normal(0, 0.26))
    jitter = ranges.white_balance_jitter
    through_jpeg = rng.random() < ranges.jpeg_share
    return Degradation(
        exposure=_log_uniform(rng, ranges.exposure),
        gamma=rng.uniform(*ranges.gamma),
        shot_noise=shot,
        read_noise=float(read),
        red_gain=rng.uniform(*ranges.red_gain),
        blue_gain=rng.uniform(*ranges.blue_gain),
        red_error=rng.uniform(1 - jitter, 1 + jitter),
        blue_error=rng.uniform(1 - jitter, 1 + jitter),
        jpeg_quality=int(rng.integers(*ranges.jpeg_quality, endpoint=True))
        if through_jpeg
        else None,
    )


def darken(pixels: Pixels, how: Degradation, rng: np.random.Generator) -> Pixels:
    """The photograph (H, W, 3), uint8 RGB, as taken by that camera in low light."""
    gains = np.array([how.red_gain, 1.0, how.blue_gain], np.float32)
    errors = np.array([how.red_error, 1.0, how.blue_error], np.float32)
    raw = unprocess(pixels, gamma=how.gamma, gains=gains) * np.float32(how.exposure)
    variance = np.float32(how.shot_noise) * raw + np.float32(how.read_noise)
    noise = rng.standard_normal(raw.shape, dtype=np.float32)
    dark = develop(raw + np.sqrt(variance) * noise, gamma=how.gamma, gains=gains * errors)
    if how.jpeg_quality is None:
        return dark
    buffer = io.BytesIO()
    Image.fromarray(dark).save(buffer, "JPEG", quality=how.jpeg_quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def unprocess(pixels: Pixels, *, gamma: float, gains: Linear) -> Linear:
    """uint8 RGB as displayed -> linear camera RGB in [0, 1], float32."""
    displayed = pixels.astype(np.float32) / 255
    # the inverse of the smoothstep 3x^2 - 2x^3
    toned = 0.5 - np.sin(np.arcsin(1 - 2 * displayed) / 3)
    linear = np.maximum(toned, 1e-8) ** np.float32(gamma)
    # dividing by a gain would tint highlights: blend to no change where the image is white
    grey = linear.mean(axis=2, keepdims=True)
    mask = (np.maximum(grey - 0.9, 0) / 0.1) ** 2
    inverse = 1 / gains
    return np.asarray(linear * np.maximum(mask + (1 - mask) * inverse, inverse), np.float32)


def develop(raw: Linear, *, gamma: float, gains: Linear) -> Pixels:
    """Linear camera RGB -> uint8 RGB as displayed."""
    linear = np.clip(raw * gains, 1e-8, 1)
    toned = linear ** np.float32(1 / gamma)
    displayed = 3 * toned**2 - 2 * toned**3
    return np.asarray(np.rint(displayed * 255), np.uint8)


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))
