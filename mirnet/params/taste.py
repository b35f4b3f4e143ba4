"""A person's choices about an enhanced image: how bright, how strong, how smooth."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from mirnet.errors import UsageError, without_kind
from mirnet.params.recipe import Section

AUTO = "auto"
MAX_STOPS = 8.0
_STOPS = re.compile(r"([+-]\d*\.?\d+(?:[eE][+-]?\d+)?)(?:\s*stops?)?|(\d*\.?\d+)\s*stops?")
_HOW = (
    f"write {AUTO}, a mean brightness between 0 and 1 such as 0.45, or up to {MAX_STOPS:g} stops "
    "with a sign such as +0.5"
)


def _canonical(value: object) -> float | str:
    """One spelling for each exposure, so that equal ones have equal digests.

    A sign makes a number stops: ``0.5`` is a brightness, ``+0.5`` and ``-0.5`` are stops.
    """
    text = "" if isinstance(value, bool) else str(value).strip()
    if text == AUTO:
        return AUTO
    if found := _STOPS.fullmatch(text):
        stops = float(found[1] or found[2])
        if abs(stops) > MAX_STOPS:
            raise _refused()
        return f"{stops:+} stops" if stops else AUTO
    try:
        target = float(text)
    except ValueError:
        raise _refused() from None
    if not 0 < target < 1:
        raise _refused()
    return target


def _refused() -> ValueError:
    return ValueError(_HOW)


class Taste(Section):
    """A person's choices; the defaults are the network's own output."""

    strength: float = Field(
        1.0,
        ge=0,
        le=1.5,
        description="0 gives the input, 1 the enhanced image, more goes beyond it",
    )
    exposure: Annotated[float | str, BeforeValidator(_canonical)] = Field(
        AUTO,
        description="brightness: auto, as the network makes it; a mean luma between 0 and 1; or "
        "stops with a sign, such as +0.5",
    )
    denoise: float = Field(
        1.0,
        ge=0,
        le=1,
        description="1 is as smooth as the network's output, 0 as grainy as the input",
    )

    even: bool = Field(
        False,
        description="in a batch, images of one scene that follow each other in a folder come out "
        "alike in brightness",
    )

    @property
    def plain(self) -> bool:
        """Whether this is a mixture of the input and the network's output and nothing else."""
        mixture = self.strength <= 1 and self.exposure == AUTO and self.denoise == 1
        return mixture and not self.even

    @property
    def evens(self) -> bool:
        """Whether an output depends on the images before it: with a target all are even already."""
        return self.even and self.target is None

    @property
    def target(self) -> float | None:
        """The mean luma that was chosen, 0 to 1; none: no mean was."""
        return self.exposure if isinstance(self.exposure, float) else None

    @property
    def stops(self) -> float:
        """The change of exposure that was chosen, in stops."""
        if isinstance(self.exposure, float) or self.exposure == AUTO:
            return 0.0
        return float(self.exposure.split()[0])


def taste_of(strength: float, exposure: float | str, denoise: float) -> Taste:
    """The choices, checked.

    Raises:
        UsageError: one is out of bounds; names it.
    """
    try:
        return Taste(strength=strength, exposure=exposure, denoise=denoise)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(
            f"{problem['loc'][0]} {problem['input']}: {without_kind(problem['msg'])}"
        ) from error
