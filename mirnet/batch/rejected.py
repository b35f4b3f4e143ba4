"""Thumbnails of outputs rejected by the safety checks, beside the run's records, for the contact
sheet.
"""

from __future__ import annotations

import itertools
import logging

import numpy as np

from mirnet.batch.ledger import RunFolder
from mirnet.images import Image, encode
from mirnet.storage.store import KeyRefused, ObjectRefused, TransientStorageError

logger = logging.getLogger(__name__)

SIDE = 240


class RejectedOutputs:
    """Stores the first few of a process; thread-safe."""

    def __init__(self, run: RunFolder, *, num_images: int) -> None:
        self._run, self._num = run, num_images
        self._numbers = itertools.count()

    def keep(self, input_key: str, jpeg: bytes) -> None:
        """Write a thumbnail (:func:`small_jpeg`), unless there are enough.

        A failure of the store is only logged.
        """
        if next(self._numbers) >= self._num:
            return
        try:
            self._run.write_rejected(input_key, jpeg)
        except (KeyRefused, ObjectRefused, TransientStorageError) as error:
            logger.warning("%s: no contact image of what was rejected: %s", input_key, error)


def small_jpeg(image: Image) -> bytes:
    """At most 240 pixels per side, by subsampling."""
    step = max(1, -(-max(image.pixels.shape[:2]) // SIDE))
    small = Image(np.ascontiguousarray(image.pixels[::step, ::step]))
    return encode(small, format="JPEG", quality=85)
