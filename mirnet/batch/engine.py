"""One interface for all kinds of ``enhance`` that a caller may pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mirnet.batch.run_config import BatchRunConfig
from mirnet.errors import DeviceBroken, first_line
from mirnet.images import Image, Made
from mirnet.params import Taste

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

    def __call__(self, images: Sequence[Image]) -> list[Made]:
        """The enhanced images, in the same order; without any choice where the taste evens, since
        these depend on other images.
        """


def open_engine(enhance: Any, taste: Taste) -> Engine:
    """The engine of a :class:`LazyEnhance`, an ``Enhancer``, an object with
    ``enhance_image(image, strength)`` or a function ``Image -> Image``.

    Args:
        taste: what a person chose; a function does not know of ``strength`` up to 1.
    """
    while isinstance(enhance, LazyEnhance):
        enhance = enhance.load()
    if hasattr(enhance, "enhance_images"):
        return _Network(enhance, taste)
    method = getattr(enhance, "enhance_image", None)
    strength = taste.strength if taste.plain else 1.0
    function = enhance if method is None else lambda image: method(image, strength)
    return _Function(function, taste)


class _Function:
    """One image at a time."""

    max_pixels: int | None = None

    def __init__(self, function: EnhanceImage, taste: Taste) -> None:
        self._function, self._taste = function, taste

    def fix_shapes(self, run_config: BatchRunConfig) -> None:
        """Nothing to choose."""

    def batch_size(self, image: Image) -> int:  # noqa: ARG002
        return 1

    def give_back(self) -> None:
        """Nothing is kept."""

    def __call__(self, images: Sequence[Image]) -> list[Made]:
        return [self._made(image) for image in images]

    def _made(self, image: Image) -> Made:
        output = self._function(image)
        if self._taste.plain or self._taste.evens:
            return Made(output, output.pixels)
        from mirnet.inference.taste import made  # imports torch

        return made(image, output.pixels, self._taste)


class _Network:
    """An ``Enhancer``."""

    def __init__(self, enhancer: Any, taste: Taste) -> None:
        self._enhancer, self._taste = enhancer, taste
        self.max_pixels: int | None = enhancer.max_pixels

    def fix_shapes(self, run_config: BatchRunConfig) -> None:
        self._enhancer.fix_shapes(run_config.sizes, max_pixels=run_config.max_pixels)

    def batch_size(self, image: Image) -> int:
        return int(self._enhancer.batch_size(*image.pixels.shape[:2]))

    def give_back(self) -> None:
        self._enhancer.give_back()

    def __call__(self, images: Sequence[Image]) -> list[Made]:
        """At once.

        Raises:
            DeviceBroken: the device fails for all further images.
        """
        import torch  # the other engines do not need it

        try:
            return self._made(images)
        except torch.AcceleratorError as error:
            raise DeviceBroken(
                f"the device is unusable: {first_line(error)}; start the run again"
            ) from error

    def _made(self, images: Sequence[Image]) -> list[Made]:
        if self._taste.plain:
            done = self._enhancer.enhance_images(images, self._taste.strength)
            return [Made(image, image.pixels) for image in done]
        from mirnet.inference.enhancer import fine_images, make_images  # imports torch

        if self._taste.evens:
            return [Made(image, image.pixels) for image in fine_images(self._enhancer, images)]
        return make_images(self._enhancer, images, self._taste)
