"""Stand-ins for a model that die of images of one size; importable, so that a child finds them."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import numpy as np

from mirnet.errors import DeviceBroken
from mirnet.images import Image
from mirnet.signals import advance
from tests.batch.samples import double

DEADLY_SIDE = 31


@dataclass(frozen=True)
class Killer:
    """``how``: ``kill``, ``abort``, ``memory``, ``loop``, ``device``; of images of that side."""

    how: str
    side: int = DEADLY_SIDE

    def __call__(self, image: Image) -> Image:
        if image.pixels.shape[0] == self.side:
            getattr(self, self.how)()
        return double(image)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def abort(self) -> None:
        os.abort()

    def memory(self) -> None:
        held = []
        while True:
            held.append(np.ones(2**20))  # 8 MiB, resident
            advance()  # not the time

    def loop(self) -> None:
        while True:
            pass

    def device(self) -> None:
        raise DeviceBroken("the device is unusable")
