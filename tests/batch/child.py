"""Runs one batch in a process of its own, to be killed, stopped or raced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

from mirnet.batch.run import run_batch
from mirnet.config import Settings, environment
from mirnet.errors import MirnetError
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.signals import termination_as_exception
from tests.batch.samples import MODEL, double

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mirnet.batch.run", "mirnet.storage.s3", "tests.batch.samples"])


def work(
    source: str,
    target: str,
    settings: dict[str, Any],
    variables: dict[str, str],
    seconds_per_image: float,
    answers: Queue[str] | None,
    ready: Event | None,
    deadly_side: int,
    enhance: Callable[[Image], Image] | None,
    kill_attempts: int,
    choices: dict[str, Any],
) -> None:
    def slowly(image: Image) -> Image:
        if image.pixels.shape[0] == deadly_side:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds_per_image)
        return double(image)

    with environment(**variables), termination_as_exception():
        if ready is not None:
            ready.set()
        try:
            result = run_batch(
                source,
                target,
                enhance=enhance or slowly,
                model=MODEL,
                params=EnhanceParams(contact_images=0, kill_attempts=kill_attempts, **choices),
                settings=Settings(**settings),
            )
        except MirnetError as error:
            answer = f"{type(error).__name__}: {error}"
        else:
            answer = result.model_dump_json()
        if answers is not None:
            answers.put(answer)


def start(
    source: str,
    target: str,
    *,
    settings: dict[str, Any],
    variables: dict[str, str],
    seconds_per_image: float = 0.0,
    answers: Queue[str] | None = None,
    ready: Event | None = None,
    deadly_side: int = 0,
    enhance: Callable[[Image], Image] | None = None,
    kill_attempts: int = 2,
    **choices: Any,
) -> ForkServerProcess:
    """``deadly_side``: an image of that height kills the process, which has no child for suspects.

    ``ready``: set as soon as SIGTERM is handled.
    ``enhance``: pickles; in place of the two arguments. ``choices``: params of ``enhance``.
    """
    process = CONTEXT.Process(
        target=work,
        args=(
            *(source, target, settings, variables),
            *(seconds_per_image, answers, ready, deadly_side, enhance, kill_attempts, choices),
        ),
    )
    process.start()
    return process
