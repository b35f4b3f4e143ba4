"""The work on one image that needs no store: the bytes of a file -> the bytes of its output.

Runs in the process of the batch, and for suspects in a child process
(:mod:`mirnet.batch.isolation`), which opens no store but has the account and the environment of
the job: its model may have to be fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mirnet.batch.engine import Engine
from mirnet.batch.guard import BRIGHT, harm_limits, is_bright
from mirnet.batch.manifest import Status
from mirnet.batch.rejected import small_jpeg
from mirnet.errors import NO_MEMORY, ImageError, ServiceError, UsageError
from mirnet.images import Image, Made, Pixels, Seen, decode, encode
from mirnet.images.brightness import mixed, share_of_output
from mirnet.images.formats import format_named
from mirnet.images.harm import judge
from mirnet.images.metadata import left_behind
from mirnet.images.stats import Measures, measure, shadows
from mirnet.params import EnhanceParams

# maximum length of the list of dropped metadata
_MAX_WORDS = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an image has no output: ``failed`` or ``quarantined``."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image and its measures, ready for the model.

    ``passed``: why the image is passed through without the model.
    """

    image: Image
    before: Measures
    shadows: float
    passed: str | None = None


Count = Annotated[int, Field(ge=0, lt=2**63)]


class Columns(BaseModel):
    """What the work adds to the row of an image."""

    model_config = ConfigDict(strict=True, extra="forbid")

    luminance_before: float
    luminance_after: float
    width: Count
    height: Count
    dark_share: float
    bright_share: float
    noise: float
    saturation: float
    shadows: float
    dropped: Annotated[str, Field(max_length=1000)] | None
    evened: float | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """The output of an image.

    ``data``: its bytes; none: those of the input. ``passed``: why the input is passed through.
    ``rejected``: thumbnail of an output that the safety checks rejected, a JPEG.
    """

    data: bytes | None
    content_type: str
    passed: str | None
    columns: Columns
    rejected: bytes | None = None


@dataclass(frozen=True)
class ImageWork:
    """Decodes, enhances, judges and encodes; the same bytes wherever it runs.

    ``format``: of the outputs, if it is not that of the input.
    """

    params: EnhanceParams
    engine: Engine
    format: str | None = None

    def whole(self, data: bytes, *, name: str, before: Sequence[Seen] = ()) -> Encoded | Problem:
        """All steps for one image.

        Args:
            before: of its sequence, as :meth:`view` gives them.

        Raises:
            ServiceError: not caused by the image; :class:`~mirnet.errors.DeviceBroken` may be.
        """
        decoded = self.decode(data, name=name)
        if isinstance(decoded, Problem):
            return decoded
        if decoded.passed is not None:
            return self.encode(decoded, decoded.image)
        (made,) = self.enhance([decoded.image])
        if isinstance(made, Problem):
            return made
        if self.params.evens:
            own = self.seen(decoded, made.image.pixels)
            if isinstance(own, Problem):
                return own
            made = self.even(decoded, made.image.pixels, own, before)
            if isinstance(made, Problem):
                return made
        return self.encode(decoded, made.image, made.own, made.evened)

    def view(self, data: bytes, *, name: str) -> Seen | Problem | None:
        """What later images of its sequence need of an image; none if it is bad, or the network
        fails on it; a problem if another machine may have enough memory.

        Raises:
            ServiceError: as :meth:`whole`.
        """
        decoded = self.decode(data, name=name)
        if isinstance(decoded, Problem):
            return decoded if decoded.reason.startswith(NO_MEMORY) else None
        output: Image | None = decoded.image
        if decoded.passed is None:
            (made,) = self.enhance([decoded.image])
            output = None if isinstance(made, Problem) else made.image
        found = None if output is None else self.seen(decoded, output.pixels)
        return None if isinstance(found, Problem) else found

    def seen(self, decoded: Decoded, output: Pixels) -> Seen | Problem:
        """As :meth:`view`, given the network's output, or the input if it is passed through."""
        from mirnet.inference.scene import seen  # imports torch

        share = share_of_output(decoded.shadows, self.params.pass_luminance)
        try:
            return seen(decoded.image.pixels, output, share)
        except Exception as error:  # noqa: BLE001 - any failure must not affect other images
            return Problem("failed", f"model: {first_words(error)}")

    def even(
        self, decoded: Decoded, output: Pixels, own: Seen, before: Sequence[Seen]
    ) -> Made | Problem:
        """The result for an image, given the network's output and what was seen before it."""
        from mirnet.inference.scene import even_stops
        from mirnet.inference.taste import made

        try:
            stops = even_stops(output, own, before)
            return made(decoded.image, output, self.params, even=stops)
        except Exception as error:  # noqa: BLE001 - any failure must not affect other images
            return Problem("failed", f"model: {first_words(error)}")

    def decode(self, data: bytes, *, name: str) -> Decoded | Problem:
        """Decode and measure the bytes of a file."""
        try:
            image = decode(data, name=name, max_pixels=self.params.max_pixels)
            before, dark = measure(image.pixels), shadows(image.pixels)
        except ImageError as error:
            if error.reason == NO_MEMORY:  # another machine may have enough memory
                return Problem("failed", f"{NO_MEMORY}: {error}")
            return Problem("quarantined", error.reason)
        except Exception as error:  # noqa: BLE001 - any failure must not affect other images
            return Problem("failed", f"decoding: {first_words(error)}")
        return Decoded(image, before, dark, BRIGHT if is_bright(dark, self.params) else None)

    def enhance(self, images: Sequence[Image]) -> list[Made | Problem]:
        """Run the model on images of one size; after a failure, one by one.

        Raises:
            ServiceError: as :meth:`whole`.
        """
        try:
            return list(self.engine(images))
        except ServiceError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure must not affect other images
            if len(images) > 1:
                return [each for image in images for each in self.enhance([image])]
            return [Problem("failed", f"model: {first_words(error)}")]

    def encode(
        self,
        decoded: Decoded,
        image: Image,
        own: Pixels | None = None,
        evened: float | None = None,
    ) -> Encoded | Problem:
        """Judge an output and encode it, or the input if the safety checks reject the output.

        Args:
            image: the output, or the input if it is passed through.
            own: what the network made of it, which is judged; none: the output.
            evened: of :class:`~mirnet.images.Made`.

        Raises:
            ServiceError: as :meth:`whole`.
        """
        try:
            return self._encode(decoded, image, image.pixels if own is None else own, evened)
        except UsageError as error:  # the input is valid; its output cannot be encoded
            return Problem("failed", f"output: {first_words(error)}")
        except ServiceError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure must not affect other images
            return Problem("failed", f"writing: {first_words(error)}")

    def _encode(self, decoded: Decoded, image: Image, own: Pixels, evened: float | None) -> Encoded:
        rejected, passed = None, decoded.passed
        if passed is None:
            share = share_of_output(decoded.shadows, self.params.pass_luminance)
            before = decoded.image.pixels
            image = replace(image, pixels=mixed(before, image.pixels, share))
            own = mixed(before, own, share)
            harm = judge(before, own, harm_limits(self.params))
            if harm is not None:
                rejected, image, passed = small_jpeg(image), decoded.image, harm.reason
        data, lost = None, ""
        if not passed or self.format not in (None, image.format):
            data = encode(image, format=self.format)
            lost = "; ".join(left_behind(image, self.format))[:_MAX_WORDS]
        after = decoded.before if passed else measure(image.pixels)
        height, width = image.pixels.shape[:2]
        columns = Columns(
            luminance_before=round(decoded.before.luminance, 5),
            luminance_after=round(after.luminance, 5),
            width=width,
            height=height,
            dark_share=round(decoded.before.dark_share, 5),
            bright_share=round(decoded.before.bright_share, 5),
            noise=round(decoded.before.noise, 6),
            saturation=round(decoded.before.saturation, 5),
            shadows=round(decoded.shadows, 5),
            dropped=lost or None,
            evened=None if passed or evened is None else round(evened, 4),
        )
        content_type = format_named(self.format or image.format).content_type
        return Encoded(data, content_type, passed, columns, rejected)


def first_words(error: Exception) -> str:
    """The message of an error in one line, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
