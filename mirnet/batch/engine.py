"""One interface for all kinds of ``enhance`` that a caller may pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mirnet.batch.run_config import BatchRunConfig
from mirnet.errors import DeviceBroken, first_line
from mirnet.images import Image

EnhanceImage = Callable[[Image], Image]


@dataclass(frozen=True)
class LazyEnhance:
    """Load the model only where and when it is needed: on Ray in each actor."""

    load: Callable[[], Any]


class Engine(Protocol):
    """Enhances batches of images of one size."""

    max_pixels: int | None

    def fix_shapes(self, run_config: BatchRunConfig) -> None:
        """Fix the compiled shapes, so that an output depends only on its image and these."""

    def batch_size(self, image: Image) -> int:
        """Batch size for images of this size."""

    def give_back(self) -> None:
        """Free memory kept for further images, for another process."""

    def __call__(self, images: Sequence[Image]) -> list[Image]:
        """The enhanced images, in the same order."""


def open_engine(enhance: Any, strength: float) -> Engine:
    """The engine of a :class:`LazyEnhance`, an ``Enhancer``, an object with
    ``enhance_image(image, strength)`` or a function ``Image -> Image``.
    """
    while isinstance(enhance, LazyEnhance):
        enhance = enhance.load()
    if hasattr(enhance, "enhance_images"):
        return _Network(enhance, strength)
    method = getattr(enhance, "enhance_image", None)
    return _Function(enhance if method is None else lambda image: method(image, strength))


class _Function:
    """One image at a time."""

    max_pixels: int | None = None

    def __init__(self, function: EnhanceImage) -> None:
        self._function = function

    def fix_shapes(self, run_config: BatchRunConfig) -> None:
        """Nothing to choose."""

    def batch_size(self, image: Image) -> int:  # noqa: ARG002
        return 1

    def give_back(self) -> None:
        """Nothing is kept."""

    def __call__(self, images: Sequence[Image]) -> list[Image]:
        return [self._function(image) for image in images]


class _Network:
    """An ``Enhancer``."""

    def __init__(self, enhancer: Any, strength: float) -> None:
        self._enhancer, self._strength = enhancer, strength
        self.max_pixels: int | None = enhancer.max_pixels

    def fix_shapes(self, run_config: BatchRunConfig) -> None:
        self._enhancer.fix_shapes(run_config.sizes, max_pixels=run_config.max_pixels)

    def batch_size(self, image: Image) -> int:
        return int(self._enhancer.batch_size(*image.pixels.shape[:2]))

    def give_back(self) -> None:
        self._enhancer.give_back()

    def __call__(self, images: Sequence[Image]) -> list[Image]:
        """At once.

        Raises:
            DeviceBroken: the device fails for all further images.
        """
        import torch  # the other engines do not need it

        try:
            done: list[Image] = self._enhancer.enhance_images(images, self._strength)
        except torch.AcceleratorError as error:
            raise DeviceBroken(
                f"the device is unusable: {first_line(error)}; start the run again"
            ) from error
        return done
