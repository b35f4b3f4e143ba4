"""Enhancement of images of any size in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from mirnet.errors import UsageError, WeightsError
from mirnet.images import Image, Made, Pixels
from mirnet.images.stats import REC601, to_luma
from mirnet.inference.passes import Passes
from mirnet.inference.pixels import as_pixels
from mirnet.inference.taste import finished, made
from mirnet.models import load_model
from mirnet.params import Precision, Taste, taste_of
from mirnet.params.taste import AUTO

P = TypeVar("P", bound=np.uint8 | np.uint16)

# of an output that a person's choices are applied to
_FINE = np.dtype(np.uint16)


class Enhancer(Passes):
    """Enhances images of any size with one network, in bounded memory.

    The network gets a margin of mirrored pixels around the image (:mod:`mirnet.models.margin`).
    An image that fits into the memory limit is processed in one pass. A larger one is processed
    in tiles that share global statistics, collected over all tiles or estimated from a downscaled
    copy and from crops, as the network's entry says.

    On CPU with glibc, memory that is freed stays with the process between the maps of a pass
    (:func:`~mirnet.inference.memory.keep_freed_memory`), which concerns the whole process.

    Args:
        model: a network of :mod:`mirnet.models`; copied, so it is not modified.
        precision: arithmetic; ``auto`` is bf16 where the hardware has units for it.
        device: ``cpu`` or ``cuda``; none: CUDA where there is one.
        memory_limit_gib: for feature maps; none: half of the free memory, on CPU 3 GiB at most.
        compile: compile the network for image sizes that occur repeatedly.
        cache_dir: folder of compiled code, shared with other processes.

    Raises:
        UsageError: the memory limit is too small for the network, or the network is not supported.
    """

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        precision: Precision = "auto",
        device: str | None = None,
        memory_limit_gib: float | None = None,
        compile: bool = True,
        cache_dir: Path | None = None,
    ) -> Enhancer:
        """From a model folder or a published checkpoint file, without settings or registry.

        Args:
            source: its path; the other arguments are those of :class:`Enhancer`.

        Raises:
            WeightsError: nothing there, or not a model; names it.
            UsageError: the memory limit is too small for the network.
        """
        path = Path(source)
        if not path.exists():
            raise WeightsError(f"{path}: no such model folder or checkpoint file")
        return cls(
            load_model(path),
            precision=precision,
            device=device,
            memory_limit_gib=memory_limit_gib,
            compile=compile,
            cache_dir=cache_dir,
        )

    def __call__(
        self,
        pixels: npt.NDArray[P],
        strength: float = 1.0,
        *,
        exposure: float | str = AUTO,
        denoise: float = 1.0,
    ) -> npt.NDArray[P]:
        """Enhance an array.

        Args:
            pixels: (H, W, 3) RGB, uint8 or uint16, of any size from 1x1; sRGB, as decoded.
            strength: 0 gives the input, 1 the network's output, between them a mixture; up to 1.5
                goes beyond the output.
            exposure: ``auto``, as the network makes it; a mean luma between 0 and 1; or stops with
                a sign, such as ``"+0.5"``.
            denoise: 1 is as smooth as the network's output, 0 as grainy as the input.

        Returns:
            A new array of the same shape and type.

        Raises:
            UsageError: another shape or type, a choice out of bounds, or an image beyond the
                memory limit of a network that is not tiled.
            WeightsError: the network's output is not finite.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.uint16):
            raise UsageError(
                f"expected (height, width, 3) of uint8 or uint16, got {pixels.shape} {pixels.dtype}"
            )
        taste = taste_of(strength, exposure, denoise)
        if strength == 0 or pixels.size == 0:
            return pixels.copy()
        if taste.plain:
            return self._output(pixels, strength, pixels.dtype)
        own = self._output(pixels, 1.0, _FINE)
        return finished(pixels, own, taste)  # type: ignore[return-value]

    def enhance_image(
        self,
        image: Image,
        strength: float = 1.0,
        *,
        exposure: float | str = AUTO,
        denoise: float = 1.0,
    ) -> Image:
        """Enhance an image as :func:`mirnet.images.decode` gives it.

        Transparency, profile and metadata stay, and a grey image stays grey. The choices are those
        of :meth:`__call__`.

        Raises:
            UsageError: a choice out of bounds.
            WeightsError: the network's output is not finite.
        """
        taste = taste_of(strength, exposure, denoise)
        if taste.plain or strength == 0:
            return _finish(image, self(image.pixels, strength))
        own = _finish(image, self._output(image.pixels, 1.0, _FINE))
        return replace(image, pixels=finished(image.pixels, own.pixels, taste))

    def enhance_images(
        self,
        images: Sequence[Image],
        strength: float = 1.0,
        *,
        exposure: float | str = AUTO,
        denoise: float = 1.0,
    ) -> list[Image]:
        """As :meth:`enhance_image`, for up to :meth:`batch_size` images of one size at once.

        An incomplete batch is padded: rounding depends on the batch size, but not on the position
        in the batch or on the other images.
        """
        taste = taste_of(strength, exposure, denoise)
        return [each.image for each in make_images(self, images, taste)]

    def _outputs(
        self, images: Sequence[Image], strength: float, dtype: np.dtype[Any] | None = None
    ) -> list[Pixels]:
        """The network's outputs for images of one size, by default of the type of each."""
        height, width = images[0].pixels.shape[:2]
        size = self.batch_size(height, width)
        kinds = [dtype or image.pixels.dtype for image in images]
        if size == 1 or strength == 0:
            pairs = zip(images, kinds, strict=True)
            return [self._output(image.pixels, strength, kind) for image, kind in pairs]
        assert len(images) <= size and all(i.pixels.shape[:2] == (height, width) for i in images)
        filled = [images[min(n, len(images) - 1)].pixels for n in range(size)]
        whole = self._whole(filled[0])
        lows = torch.cat([self._read(pixels, whole) for pixels in filled])
        mixed = lows.lerp(self._run(lows, None), strength)
        return [as_pixels(mixed[n], whole, kind) for n, kind in enumerate(kinds)]


def make_images(enhancer: Enhancer, images: Sequence[Image], taste: Taste) -> list[Made]:
    """As :meth:`Enhancer.enhance_images`, and with each what the safety checks of a batch judge."""
    dtype = None if taste.plain or taste.strength == 0 else _FINE
    if dtype is None:
        outputs = enhancer._outputs(images, taste.strength)
        done = [_finish(image, own) for image, own in zip(images, outputs, strict=True)]
        return [Made(image, image.pixels) for image in done]
    fine = fine_images(enhancer, images)
    return [made(image, own.pixels, taste) for image, own in zip(images, fine, strict=True)]


def fine_images(enhancer: Enhancer, images: Sequence[Image]) -> list[Image]:
    """As :meth:`Enhancer.enhance_images` without any choice, in 16 bits."""
    outputs = enhancer._outputs(images, 1.0, _FINE)
    return [_finish(image, own) for image, own in zip(images, outputs, strict=True)]


def _finish(image: Image, pixels: Pixels) -> Image:
    """The image with new pixels."""
    if image.grey:
        # as in Pillow's conversion to L; by parts, for the memory
        for rows in np.array_split(pixels, max(pixels.size // 2**22, 1)):
            rows[:] = to_luma(rows.astype(np.float64), REC601).round()[..., None]
    return replace(image, pixels=pixels)
