"""Result of a batch of a single named image, with the reason in words."""

from __future__ import annotations

from mirnet.batch.manifest import Row
from mirnet.errors import NotAPicture, TooManyBad
from mirnet.results import EnhanceResult, ImageFate

SKIPPED = "skipped"
_WORDS = {
    "empty": "the file is empty",
    "not-an-image": "its content is none of the formats that are read",
    "truncated": "damaged or cut short",
    "too-large": "more than enhance.max_pixels or enhance.max_bytes allow",
    "unsupported": "a kind of its format that is not supported",
    "animated": "several images in one file",
    "kills-the-process": "the process that worked on it died: memory, a crash, or no end",
    "bright": "it is bright enough",
    "harm: darker": "the model would have made it darker",
    "harm: dimmed": "the model would have made parts of it darker",
    "harm: order": "the model would have made bright parts darker than dark ones",
    "harm: tinted": "the model would have tinted what is white or grey",
    "harm: clipped": "the model would have burnt out or crushed parts of it",
    "harm: noisier": "the model would have made it noisy",
}
# whoever names such a file has named the wrong one
_NO_PICTURES = ("empty", "not-an-image")


def fate_of(row: Row | None, *, source: str, output: str | None) -> ImageFate:
    """What became of the image.

    Args:
        row: of this run; none where it was done before.
        source: the image as the person wrote it.
        output: what it goes to.
    """
    if row is None:
        return ImageFate(input=source, output=output, fate=SKIPPED)
    return ImageFate(
        input=source,
        output=output if row.status in ("enhanced", "passed_through") else None,
        fate=row.status,
        reason=row.reason,
        luminance_before=row.luminance_before,
        luminance_after=row.luminance_after,
    )


def why(fate: ImageFate) -> str:
    """The reason, in words if it is a code."""
    reason = fate.reason or fate.fate
    words = _WORDS.get(reason.partition(";")[0])
    return f"{reason}: {words}" if words else reason


def error_of(fate: ImageFate, result: EnhanceResult) -> TooManyBad:
    """One line; exit code 2 if the file is not an image."""
    kind = NotAPicture if fate.reason in _NO_PICTURES else TooManyBad
    return kind(f"{fate.input}: {why(fate)}", result)
