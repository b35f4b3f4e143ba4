"""Image in, image out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mirnet.errors import UsageError, WeightsError
from mirnet.images import Image
from mirnet.inference.padding import pad_to_multiple
from mirnet.inference.precision import resolve_dtype
from mirnet.models import load_model, read_checkpoint

P = TypeVar("P", bound=np.uint8 | np.uint16)


class Enhancer:
    """Enhances images of any size with one network.

    Args:
        model: a network of :mod:`mirnet.models`; put into evaluation mode, not copied.
        precision: arithmetic; ``auto`` is bf16 where the hardware has it.
        device: ``cpu`` or ``cuda``; none: CUDA where there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: Literal["auto", "float32", "bf16"] = "auto",
        device: str | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = resolve_dtype(precision, self.device)
        self.model = model.eval().to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        precision: Literal["auto", "float32", "bf16"] = "auto",
        device: str | None = None,
    ) -> Enhancer:
        """From a model folder or a published checkpoint file.

        Raises:
            WeightsError: nothing there, or not a model; names it.
        """
        path = Path(source)
        if not path.exists():
            raise WeightsError(f"{path}: no such model folder or checkpoint file")
        model = load_model(path) if path.is_dir() else read_checkpoint(path)
        return cls(model, precision=precision, device=device)

    def __call__(self, pixels: npt.NDArray[P], strength: float = 1.0) -> npt.NDArray[P]:
        """Enhance (H, W, 3) RGB, uint8 or uint16, of any size from 1x1; same shape and type.

        Args:
            strength: 0 gives the input, 1 the network's output, between them a mixture.

        Raises:
            UsageError: another shape or type, or a strength outside 0 to 1.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.uint16):
            raise UsageError(
                f"expected (height, width, 3) of uint8 or uint16, got {pixels.shape} {pixels.dtype}"
            )
        if not 0 <= strength <= 1:
            raise UsageError(f"strength {strength}: from 0 to 1")
        if strength == 0 or pixels.size == 0:
            return pixels.copy()
        peak = np.iinfo(pixels.dtype).max
        low = torch.from_numpy(pixels.astype(np.float32) / peak).permute(2, 0, 1)[None]
        enhanced = self._whole(low).lerp(low, 1 - strength) if strength < 1 else self._whole(low)
        scaled = (enhanced[0].permute(1, 2, 0) * peak).round().clamp(0, peak)
        return scaled.numpy().astype(pixels.dtype)

    def enhance_image(self, image: Image, strength: float = 1.0) -> Image:
        """Enhance a decoded image; transparency, profile and metadata stay. Grey stays grey."""
        pixels = self(image.pixels, strength)
        if image.grey:
            # ITU-R BT.601, as in Pillow's conversion to L
            luma = pixels @ np.array([0.299, 0.587, 0.114])
            pixels = np.repeat(luma.round().astype(pixels.dtype)[..., None], 3, axis=2)
        return replace(image, pixels=pixels)

    @torch.inference_mode()
    def _whole(self, low: Tensor) -> Tensor:
        """(1, 3, H, W) float32 in [0, 1] -> the same, clamped; all pixels at once."""
        height, width = low.shape[2:]
        padded = pad_to_multiple(low, multiple=4, least=8)
        padded = padded.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16
        ):
            out = self.model(padded)
        cropped: Tensor = out[..., :height, :width]
        return cropped.float().clamp(0, 1).cpu()
