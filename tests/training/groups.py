"""Workers without Ray: processes in a gloo group, which run one function after the other."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pyarrow import fs

from mirnet.training.context import InProcess
from mirnet.training.job import Job
from mirnet.training.loop import fit
from mirnet.training.request import Listener
from mirnet.training.store import CheckpointStore
from mirnet.training.workers import Workers


class GroupContext(Workers, InProcess):
    """The context of one process of the group; rank 0 keeps the checkpoints."""

    def __init__(self, folder: Path, listener: Listener = Listener()) -> None:
        super().__init__(CheckpointStore(fs.LocalFileSystem(), str(folder)), listener)
        self.rank = self.local_rank = dist.get_rank()
        self.world_size = dist.get_world_size()


def train_in_group(job: Job, folder: Path) -> None:
    """The loop of one process; its checkpoints go to a folder."""
    fit(GroupContext(folder), job)
    dist.barrier()


def _serve(rank: int, size: int, meeting: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    while (asked := pipe.recv()) is not None:
        function, arguments = asked
        try:
            pipe.send((True, function(*arguments)))
        except Exception:  # noqa: BLE001 - raised again in the test
            pipe.send((False, traceback.format_exc()))


Run = Callable[..., list[Any]]


@contextmanager
def worker_group(size: int, folder: Path) -> Iterator[Run]:
    """``run(function, *arguments)`` calls a function of a module in each process -> results."""
    spawned = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = spawned.Pipe()
        meeting = f"file://{folder / 'meeting'}"
        process = spawned.Process(target=_serve, args=(rank, size, meeting, theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)

    def run(function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in pipes:
            pipe.send((function, arguments))
        answers = []
        for pipe in pipes:
            assert pipe.poll(600), "a worker does not answer"
            answers.append(pipe.recv())
        failed = [text for good, text in answers if not good]
        assert not failed, failed[0]
        return [value for _, value in answers]

    try:
        yield run
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join(30)
            if process.is_alive():
                process.kill()
