"""Synthesis of a dark, noisy image from a well-lit photograph with a camera model.

Unprocess to linear light, darken, add shot and read noise, develop again (Brooks et al.,
"Unprocessing images for learned raw denoising", CVPR 2019, section 3; Cui et al., "Multitask AET
with orthogonal tangent regularity for dark object detection", ICCV 2021, section 3.2). The light of
another colour temperature follows Wien's approximation of a black body. What is off by default
draws no random number, so that a seed keeps its bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image
from pydantic import Field, ValidationError, model_validator

from mirnet.errors import UsageError, without_kind
from mirnet.params import Section

Pixels = npt.NDArray[np.uint8]
Linear = npt.NDArray[np.float32]
WAVELENGTHS = np.array([600e-9, 540e-9, 450e-9])
"""Metres: about the middle of the red, green and blue response of cameras."""
C2 = 1.4388e-2
"""Second radiation constant of Planck's law, metre kelvin."""


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
    mired_shift: tuple[float, float] = Field(
        (0.0, 0.0),
        description="cast that white balance leaves, mired, uniform; above 0: warmer",
    )
    tone: tuple[float, float] = Field(
        (1.0, 1.0), description="contrast of the tone curve, uniform; 0: gamma alone"
    )
    well_lit_share: float = Field(
        0.0, ge=0, le=1, description="share of pairs whose low is the reference itself"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        names = ("exposure", "gamma", "shot_noise", "red_gain", "blue_gain", "jpeg_quality")
        for name in names:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: give a lower and an upper bound above 0")
        for name, least, most in (("mired_shift", -300, 300), ("tone", 0, 1.5)):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name}: give a lower and an upper bound in {least} to {most}")
        return self


WIDE = DegradationRanges(
    exposure=(1 / 64, 1.0),
    shot_noise=(1e-5, 1.2e-2),
    white_balance_jitter=0.05,
    jpeg_share=0.5,
    jpeg_quality=(50, 95),
    mired_shift=(-60.0, 120.0),
    tone=(0.6, 1.0),
    well_lit_share=0.15,
)
"""For a model that meets images of any camera: from no darkening at all to six stops, light between
shade and lamps (CIE illuminant A is 196 mired warmer than D65; cameras correct most of that), tone
curves of cameras, which crush shadows, JPEG in half of the lows, and pairs that need nothing."""


def ranges_from(settings: Sequence[str], *, wide: bool = False) -> DegradationRanges:
    """Ranges as published, or :data:`WIDE`, with ``key=value`` settings in YAML.

    Raises:
        UsageError: a setting has no value, an unknown key or a wrong value; names it.
    """
    values: dict[str, object] = WIDE.model_dump() if wide else {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write it as key=value, e.g. exposure=[0.02,0.4]")
        values[key] = yaml.safe_load(text)
    try:
        return DegradationRanges.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"--set {key}: {without_kind(problem['msg'])}") from error


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
    mired_shift: float = 0.0
    tone: float = 1.0
    well_lit: bool = False


def draw(ranges: DegradationRanges, rng: np.random.Generator) -> Degradation:
    shot = _log_uniform(rng, ranges.shot_noise)
    # the line through measured cameras: Brooks et al. 2019, figure 4
    read = np.exp(2.18 * np.log(shot) + 1.20 + rng.normal(0, 0.26))
    jitter = ranges.white_balance_jitter
    compressed = rng.random() < ranges.jpeg_share
    how = Degradation(
        exposure=_log_uniform(rng, ranges.exposure),
        gamma=rng.uniform(*ranges.gamma),
        shot_noise=shot,
        read_noise=float(read),
        red_gain=rng.uniform(*ranges.red_gain),
        blue_gain=rng.uniform(*ranges.blue_gain),
        red_error=rng.uniform(1 - jitter, 1 + jitter),
        blue_error=rng.uniform(1 - jitter, 1 + jitter),
        jpeg_quality=int(rng.integers(*ranges.jpeg_quality, endpoint=True)) if compressed else None,
    )
    further: dict[str, float | bool] = {}
    for name in ("mired_shift", "tone"):
        low, high = getattr(ranges, name)
        further[name] = rng.uniform(low, high) if low < high else low
    if ranges.well_lit_share:
        further["well_lit"] = bool(rng.random() < ranges.well_lit_share)
    return how.model_copy(update=further)


def darken(pixels: Pixels, how: Degradation, rng: np.random.Generator) -> Pixels:
    """The photograph (H, W, 3), uint8 RGB, as taken by that camera in low light."""
    if how.well_lit:
        return pixels
    gains = np.array([how.red_gain, 1.0, how.blue_gain], np.float32)
    errors = np.array([how.red_error, 1.0, how.blue_error], np.float32)
    light = unprocess(pixels, gamma=how.gamma, gains=gains) * np.float32(how.exposure)
    raw = expose(in_light_of(light, how.mired_shift), how.shot_noise, how.read_noise, rng)
    dark = develop(raw, gamma=how.gamma, gains=gains * errors, tone=how.tone)
    return dark if how.jpeg_quality is None else through_jpeg(dark, how.jpeg_quality)


def in_light_of(raw: Linear, mired_shift: float) -> Linear:
    """The same scene in warmer (above 0) or colder light, as bright in green.

    A black body radiates exp(-c2 / (wavelength * temperature)) in Wien's approximation; a shift of
    the reciprocal temperature by 1 mired = 1e-6 / K is a factor per channel.
    """
    if not mired_shift:
        return raw
    exponents = C2 * mired_shift * 1e-6 * (1 / WAVELENGTHS - 1 / WAVELENGTHS[1])
    return np.asarray(raw * np.exp(-exponents).astype(np.float32), np.float32)


def expose(raw: Linear, shot: float, read: float, rng: np.random.Generator) -> Linear:
    """With the noise of a sensor: Gaussian of variance ``shot * raw + read``."""
    variance = np.float32(shot) * raw + np.float32(read)
    noise = rng.standard_normal(raw.shape, dtype=np.float32)
    return np.asarray(raw + np.sqrt(variance) * noise, np.float32)


def through_jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Compressed with that quality of libjpeg (colour at half the resolution) and read again."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
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


def develop(raw: Linear, *, gamma: float, gains: Linear, tone: float = 1.0) -> Pixels:
    """Linear camera RGB -> uint8 RGB as displayed.

    ``tone`` 1 is the smoothstep 3x^2 - 2x^3 that :func:`unprocess` inverts, 0 leaves it out; above
    1 shadows become black.
    """
    linear = np.clip(raw * gains, 1e-8, 1)
    toned = linear ** np.float32(1 / gamma)
    displayed = tone * (3 * toned**2 - 2 * toned**3) + (1 - tone) * toned
    # a tone above 1 leaves 0 to 1, and a cast to uint8 would make black white
    return np.asarray(np.rint(np.clip(displayed, 0, 1) * 255), np.uint8)


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))
