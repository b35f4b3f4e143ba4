"""A job for processes on other nodes: its pixels once per node, not once per process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray
from pyarrow import fs

from mirnet.config import Settings
from mirnet.training.data.packs import fetch_pack, node_folder, open_pack, send_pack
from mirnet.training.data.pairs import PackedPairs, Pixels
from mirnet.training.job import Job

_EMPTY = np.empty(0, np.uint8)


def shared_bytes(job: Job) -> int:
    """What Ray's object store has to hold of a job."""
    in_memory = [pairs for pairs in (job.train, job.val) if pairs.folder is None]
    return sum(pairs.pixels.nbytes for pairs in in_memory)


def share_job(job: Job, settings: Settings, filesystem: fs.FileSystem, path: str) -> SharedJob:
    """Send the pixels of a job to Ray's object store, or to the checkpoint store if large."""
    return SharedJob(
        replace(job, train=_without_pixels(job.train), val=_without_pixels(job.val)),
        *(_share(pairs, settings, filesystem, path) for pairs in (job.train, job.val)),
    )


@dataclass(frozen=True)
class _SharedPack:
    """A large data set: a folder of this machine, or the store from which nodes download it."""

    folder: Path
    filesystem: fs.FileSystem | None
    place: str

    def pixels(self) -> Pixels:
        if self.filesystem is None:
            return open_pack(self.folder).pixels
        return fetch_pack(self.filesystem, self.place, node_folder(self.place)).pixels


def _share(
    pairs: PackedPairs, settings: Settings, filesystem: fs.FileSystem, path: str
) -> _SharedPack | ray.ObjectRef:
    """Pixels for all workers: once in each node's object store, or once on each node's disk."""
    if pairs.folder is None:
        return ray.put(pairs.pixels)
    place = f"{path}/packs/{pairs.folder.name}"
    if settings.ray_address is None:
        return _SharedPack(pairs.folder, None, place)
    send_pack(pairs.folder, filesystem, place)
    return _SharedPack(pairs.folder, filesystem, place)


@dataclass(frozen=True)
class SharedJob:
    """A job without its pixels, and their location."""

    job: Job
    train: _SharedPack | ray.ObjectRef
    val: _SharedPack | ray.ObjectRef

    def open(self) -> Job:
        """The job with its pixels as read-only views of memory that workers share."""
        train, val = (
            source.pixels() if isinstance(source, _SharedPack) else ray.get(source)
            for source in (self.train, self.val)
        )
        return replace(
            self.job,
            train=replace(self.job.train, pixels=train),
            val=replace(self.job.val, pixels=val),
        )


def _without_pixels(pairs: PackedPairs) -> PackedPairs:
    return replace(pairs, pixels=_EMPTY, folder=None)
