"""Size limits of decoding, checked by the header alone, and the memory of this machine."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import psutil

from mirnet.errors import NO_MEMORY
from mirnet.images.formats import Format
from mirnet.images.image import Unreadable

# control groups of version 2 and 1
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def check(height: int, width: int, max_pixels: int, *, entry: Format) -> None:
    """Refuse more pixels than the limit, and more than the memory of this machine can hold.

    Raises:
        Unreadable: ``too-large``; ``memory`` if only this machine is too small.
    """
    num_pixels = height * width
    if num_pixels > max_pixels:
        raise Unreadable(
            f"{width}x{height} is more than the limit of {max_pixels} pixels", "too-large"
        )
    needed, memory = num_pixels * entry.decode_bytes, total_memory()
    if needed > memory:
        raise Unreadable(
            f"decoding {width}x{height} takes up to {needed / 1e9:.1f} GB, more than the "
            f"{memory / 1e9:.1f} GB of this machine; a larger one, or a lower enhance.max_pixels",
            NO_MEMORY,
        )


@functools.cache
def total_memory() -> int:
    """Total memory for this process in bytes: of the machine, or of its container."""
    limits = [psutil.virtual_memory().total]
    for path in _LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def free_memory() -> float:
    """Memory in bytes that this process can still take: of the machine, or of its container."""
    return min(psutil.virtual_memory().available, free_in_container(Path("/sys/fs/cgroup")))


def free_in_container(folder: Path) -> float:
    """Bytes below the limit of this control group (version 2); infinite where there is none.

    Cached files count as free.
    """
    try:
        limit, used, facts = (
            (folder / f"memory.{name}").read_text() for name in ("max", "current", "stat")
        )
    except OSError:
        return math.inf
    if limit.strip() == "max":
        return math.inf
    found = dict(line.split() for line in facts.splitlines())
    cached = sum(float(found.get(name, 0)) for name in ("active_file", "inactive_file"))
    return max(float(limit) - float(used) + cached, 0.0)
