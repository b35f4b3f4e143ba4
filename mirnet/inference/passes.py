"""Passes of one network over an image of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mirnet.errors import UsageError, WeightsError
from mirnet.hardware import resolve_dtype
from mirnet.inference.crop_statistics import estimated_statistics
from mirnet.inference.memory import (
    GIB,
    default_limit,
    give_back_freed_memory,
    keep_freed_memory,
    max_pixels,
)
from mirnet.inference.network import FastNetwork
from mirnet.inference.pixels import as_image, as_pixels
from mirnet.inference.tile_statistics import Stage, TilePooling, counted_once
from mirnet.inference.tiles import Part, Span, tile_shape, tiles
from mirnet.models import Network
from mirnet.models.layers.pooling import GlobalPooling
from mirnet.models.margin import mirrored, rounded_up
from mirnet.params import Precision
from mirnet.signals import advance

P = TypeVar("P", bound=np.uint8 | np.uint16)

# the smallest and largest useful tiles
MIN_TILE_PIXELS = 320**2
MAX_TILE_PIXELS = 2048**2
# images that go through the network at once; on CPU, more than a fifth faster up to this size
CPU_BATCH = 4
CPU_BATCH_PIXELS = 128 * 128
MAX_BATCH = 16
MAX_BATCH_PIXELS = 2**20
# passes of at least this size take a hundred times as long as returning the memory
GIVE_BACK_PIXELS = 2**18


class Passes:
    """One network on one device: whole images, batches of small ones, and tiles of large ones.

    Args:
        model, precision, device, memory_limit_gib, compile, cache_dir: as of
            :class:`~mirnet.inference.Enhancer`.

    Raises:
        UsageError: the memory limit is too small for the network, or the network is not supported.
    """

    def __init__(
        self,
        model: Network,
        *,
        precision: Precision = "auto",
        device: str | None = None,
        memory_limit_gib: float | None = None,
        compile: bool = True,
        cache_dir: Path | None = None,
    ) -> None:
        self.architecture = model.architecture
        self.architecture.check_plain()
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = resolve_dtype(self.architecture.precision(precision), where)
        self.network = FastNetwork(
            model, device=where, dtype=dtype, compile=compile, cache_dir=cache_dir
        )
        limit = memory_limit_gib * GIB if memory_limit_gib else default_limit(where)
        self.max_pixels = max_pixels(model.config, dtype=dtype, limit=limit)
        self.halo = self.architecture.halo
        self.margin = self.architecture.margin
        self._fixed: frozenset[tuple[int, int]] = frozenset()
        if self.max_pixels < MIN_TILE_PIXELS:
            need = limit / GIB * MIN_TILE_PIXELS / self.max_pixels
            raise UsageError(f"memory limit of {limit / GIB:.2f} GiB: needs {need:.2f} at least")
        if where.type == "cpu":
            keep_freed_memory()

    def tile_shape(self, height: int, width: int) -> tuple[int, int] | None:
        """(height, width) of the tiles of an image; None: it is processed in one pass."""
        if self._pixels(height, width) <= self.max_pixels:
            return None
        return tile_shape(height, width, **self._tiling)

    def _pixels(self, height: int, width: int) -> int:
        """Pixels of the network's input for an image that is processed in one pass."""
        return (height + 2 * self.margin) * (width + 2 * self.margin)

    @property
    def _tiling(self) -> dict[str, int]:
        return {
            "max_pixels": min(self.max_pixels, MAX_TILE_PIXELS),
            "halo": self.halo,
            "margin": self.margin,
            "grid": self.architecture.size_multiple,
        }

    def fix_shapes(
        self, sizes: Collection[tuple[int, int]], *, max_pixels: int | None = None
    ) -> None:
        """Make outputs independent of earlier images.

        Compiled and eager code round differently, so the compiled sizes must not depend on the
        order of images: these sizes are compiled from the first image on, and no others. Small
        images of these sizes are processed in batches, which are always full.

        Args:
            sizes: (height, width).
            max_pixels: images that are larger, with their margin, are tiled; none: by the memory
                limit.
        """
        self.max_pixels = max_pixels or self.max_pixels
        self._fixed = frozenset(sizes)
        self.network.fix_shapes({self._tensor_shape(height, width) for height, width in sizes})

    def batch_size(self, height: int, width: int) -> int:
        """Batch size for images of a size: docs/inference.md."""
        if (height, width) not in self._fixed:
            return 1
        pixels = self._pixels(height, width)
        if self.network.device.type == "cuda":
            return max(1, min(MAX_BATCH, MAX_BATCH_PIXELS // pixels, self.max_pixels // pixels))
        return CPU_BATCH if height * width <= CPU_BATCH_PIXELS else 1

    def give_back(self) -> None:
        """Return the memory that is kept for further images to the system or the device."""
        if self.network.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            give_back_freed_memory()

    def _output(
        self, pixels: npt.NDArray[Any], strength: float, dtype: np.dtype[P]
    ) -> npt.NDArray[P]:
        """The network's output, mixed with the input."""
        if strength == 0 or pixels.size == 0:
            return pixels.astype(dtype)
        if self._pixels(*pixels.shape[:2]) <= self.max_pixels:
            return self._enhance(pixels, self._whole(pixels), strength, None, dtype)
        self._check_tiled(*pixels.shape[:2])
        return self._tiled(pixels, strength, dtype)

    def _check_tiled(self, height: int, width: int) -> None:
        if self.architecture.tiled:
            return
        raise UsageError(
            f"an image of {width}x{height} exceeds the memory limit, and {self.architecture.title} "
            "needs all of it at once: a higher limit, or a smaller image"
        )

    def _tiled(
        self, pixels: npt.NDArray[Any], strength: float, dtype: np.dtype[P]
    ) -> npt.NDArray[P]:
        height, width = pixels.shape[:2]
        values = self._statistics(pixels) if self.architecture.pools_globally else None
        out = np.empty(pixels.shape, dtype)
        for tile in tiles(height, width, **self._tiling):
            rows, columns = tile
            given = [*(values or ()), *self._frame(pixels, tile)] or None
            out[rows.keep, columns.keep] = self._enhance(pixels, tile, strength, given, dtype)
        return out

    def _frame(self, pixels: npt.NDArray[P], tile: Part) -> list[Tensor]:
        """The place of a tile in the input of the whole image, where the network asks for it."""
        if not self.architecture.aligned_corners:
            return []
        starts = [span.start + self.margin for span in tile]
        sides = [self._length(side + 2 * self.margin) for side in pixels.shape[:2]]
        place = torch.tensor([*starts, *sides], dtype=torch.float64)
        return [place.to(self.network.device)]

    def _statistics(self, pixels: npt.NDArray[P]) -> list[Tensor]:
        """Global statistics of an image that exceeds the memory limit.

        Collected exactly over the tiles, or estimated, as the network's entry says.
        """
        counts = self.network.config.averages_per_pass
        if not counts:
            values = estimated_statistics(
                pixels, self._statistics_of, entry=self.architecture, max_pixels=self.max_pixels
            )
            return [value.to(self.network.dtype) for value in values]
        known: list[Tensor] = []
        for count in counts:
            stage = Stage(known, count)
            for tile in tiles(*pixels.shape[:2], **self._tiling):
                self._collect(pixels, tile, stage)
            known = [*known, *stage.values()]
        return known

    def _collect(self, pixels: npt.NDArray[P], tile: Part, stage: Stage) -> None:
        advance()
        low = self._read(pixels, tile)
        window = counted_once(tile, low.shape[2:], image=pixels.shape, margin=self.margin)
        (frame,) = self._frame(pixels, tile) or (None,)
        self.network.collect(low, TilePooling(stage, window, frame))
        self._give_back(low)

    def _statistics_of(self, batch: Tensor, source: GlobalPooling) -> list[Tensor]:
        advance()
        values = self.network.statistics(batch, source)
        self._give_back(batch)
        return values

    def _enhance(
        self,
        pixels: npt.NDArray[Any],
        part: Part,
        strength: float,
        values: list[Tensor] | None,
        dtype: np.dtype[P],
    ) -> npt.NDArray[P]:
        """The enhanced pixels that a part of (H, W, 3) writes."""
        low = self._read(pixels, part)
        enhanced = self._run(low, values)
        self._give_back(low)
        return as_pixels(low.lerp(enhanced, strength)[0], part, dtype)

    def _run(self, low: Tensor, values: list[Tensor] | None) -> Tensor:
        """Run the network: (N, 3, H', W') float32 in [0, 1], on the CPU."""
        advance()
        enhanced = self.network(low, values).cpu()
        if not torch.isfinite(enhanced).all():
            raise WeightsError("the network's output is not finite: its weights overflow")
        return enhanced.clamp(0, 1)

    def _give_back(self, low: Tensor) -> None:
        """Return freed memory after a large pass: gaps between different sizes would add up."""
        if self.network.device.type == "cpu" and low[:, 0].numel() >= GIVE_BACK_PIXELS:
            give_back_freed_memory()

    def _whole(self, pixels: npt.NDArray[P]) -> Part:
        """The part that covers the whole image, with its margin."""
        rows, columns = (
            Span(-self.margin, size + self.margin, 0, size) for size in pixels.shape[:2]
        )
        return rows, columns

    def _read(self, pixels: npt.NDArray[P], part: Part) -> Tensor:
        """The input of a part of (H, W, 3): (1, 3, H', W') float32 in [0, 1]."""
        for axis, span in enumerate(part):
            length = self._length(span.stop - span.start)
            places = mirrored(pixels.shape[axis], start=span.start, stop=span.start + length)
            pixels = pixels.take(places.numpy(), axis=axis)
        return as_image(pixels)

    def _length(self, side: int) -> int:
        """The smallest valid side of the network's input that is at least ``side``."""
        entry = self.architecture
        return max(rounded_up(side, multiple=entry.size_multiple), entry.min_size)

    def _tensor_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the network's input for images of a size: (N, 3, H', W', statistics given)."""
        tile = self.tile_shape(height, width)
        batch = 1 if tile else self.batch_size(height, width)
        margins = 2 * self.margin
        sides = tile or (height + margins, width + margins)
        return (
            batch,
            3,
            *(self._length(side) for side in sides),
            int(tile is not None and self.architecture.takes_statistics),
        )
