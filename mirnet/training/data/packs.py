"""Data sets larger than memory: decoded once into a file that workers map; sharded on a store.

A step may use any pair, since the sampler is a function of seed and step; a mapped file serves it
from the page cache or the node's disk. On a store a pack is ``index.json``, written last,
and shards; on a disk the same index and one ``pixels.bin``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pyarrow import fs

from mirnet.atomic import write_atomically
from mirnet.storage.arrow import read_text, storage_errors, write_text
from mirnet.training.data.pairs import PackedPairs, Pixels, pack_pairs

Load = Callable[[Sequence[str]], list[tuple[Pixels, Pixels]]]

SHARD_BYTES = 256 * 2**20
_AT_ONCE = 32  # pairs decoded before they are written
_INDEX, _PIXELS = "index.json", "pixels.bin"


def pack_key(digest: str, names: Sequence[str]) -> str:
    """The name of a pack: data version and pairs."""
    return hashlib.sha256("\n".join([digest, *names]).encode()).hexdigest()[:20]


def pack_on_disk(names: Sequence[str], load: Load, folder: Path) -> PackedPairs:
    """Decode pairs into a pack, or open the existing one.

    Raises:
        DataError: low and high of a pair differ in size; names the pair.
    """
    with _only_one(folder):
        if not (folder / _INDEX).is_file():
            sizes: list[list[int]] = []
            with (folder / _PIXELS).open("wb") as file:
                for start in range(0, len(names), _AT_ONCE):
                    part = names[start : start + _AT_ONCE]
                    packed = pack_pairs(part, load(part))
                    file.write(packed.pixels.data)
                    sizes += packed.sizes.tolist()
            index = json.dumps({"names": list(names), "sizes": sizes})
            write_atomically(folder / _INDEX, index)  # last: a folder with an index is complete
    return open_pack(folder)


def open_pack(folder: Path) -> PackedPairs:
    """Map a pack on this disk; pixels are read on access."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    pixels: Pixels = np.memmap(folder / _PIXELS, np.uint8, mode="r")
    sizes = np.array(index["sizes"], np.int64).reshape(-1, 2)
    return PackedPairs(tuple(index["names"]), sizes, pixels, folder=folder)


def send_pack(folder: Path, filesystem: fs.FileSystem, path: str) -> None:
    """Upload a pack to a store, unless it exists.

    Raises:
        StorageError: the store refuses; names the path.
    """
    with storage_errors(path):
        if read_text(filesystem, f"{path}/{_INDEX}") is not None:
            return
        filesystem.create_dir(path, recursive=True)
        with (folder / _PIXELS).open("rb") as file:
            number = 0
            while part := file.read(SHARD_BYTES):
                with filesystem.open_output_stream(f"{path}/{number:06d}.bin") as stream:
                    stream.write(part)
                number += 1
        write_text(filesystem, f"{path}/{_INDEX}", (folder / _INDEX).read_text(encoding="utf-8"))


def fetch_pack(filesystem: fs.FileSystem, path: str, folder: Path) -> PackedPairs:
    """Download a pack to this node's disk, once for all of its workers, and map it.

    Raises:
        StorageError: the store refuses, or the pack does not exist; names the path.
    """
    with _only_one(folder):
        if not (folder / _INDEX).is_file():
            with storage_errors(path):
                with filesystem.open_input_stream(f"{path}/{_INDEX}") as stream:
                    index = stream.read().decode()
                shards = sorted(
                    info.path
                    for info in filesystem.get_file_info(fs.FileSelector(path))
                    if info.path.endswith(".bin")
                )
                with (folder / _PIXELS).open("wb") as file:
                    for shard in shards:
                        with filesystem.open_input_stream(shard) as stream:
                            shutil.copyfileobj(stream, file, 2**24)
            write_atomically(folder / _INDEX, index)
    return open_pack(folder)


def node_folder(place: str) -> Path:
    """Folder of a node for a pack of a store; reused by restarted workers."""
    return Path(tempfile.gettempdir()) / "mirnet-packs" / place.rpartition("/")[2]


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """One process of this machine at a time; the lock is released when its process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
