"""Statistics that are added up over tiles are those of the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.inference.tile_statistics import (
    Stage,
    StageCollectedError,
    TilePooling,
    counted_once,
)
from mirnet.inference.tiles import tiles
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling, RecordedPooling
from mirnet.models.registry import NetworkConfig, architectures

MARGIN, HALO, GRID = 4, 8, 4
SIDES = (44, 60)


def every_kind(image: Tensor, statistics: GlobalPooling) -> Tensor:
    """All statistics, at two scales; the last depend on the first."""
    half = F.avg_pool2d(image, 2)
    histogram = statistics.histogram(image).float()
    # scores in the hundreds: sharp, and without their maximum infinite
    pooled = statistics.attention_pool(
        half.repeat(1, 4, 1, 1), 400 * half[:, [0, 1, 2, 0]], heads=2
    )
    mean = statistics.mean(image, 3 * half)
    lit = image * mean + pooled.mean() + histogram[:, :, 128:].sum(2, keepdim=True)
    cosines = statistics.correlation(lit.repeat(1, 2, 1, 1), lit[:, [1, 2]] - 1, heads=2)
    return lit * statistics.mean(lit) + cosines.mean()


PER_PASS = (3, 1, 1)


def uneven() -> Tensor:
    """(1, 3, H, W): a gradient with noise, and a corner that is much brighter."""
    height, width = (side + 2 * MARGIN for side in SIDES)
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) / 10
    image += torch.linspace(0, 0.3, width)
    image[:, :, -9:, -6:] = 0.95
    return image


def collected(image: Tensor, per_pass: Sequence[int]) -> list[Tensor]:
    known: list[Tensor] = []
    for count in per_pass:
        stage = Stage(known, count)
        for tile in tiles(*SIDES, max_pixels=32 * 28, halo=HALO, margin=MARGIN, grid=GRID):
            rows, columns = (slice(span.start + MARGIN, span.stop + MARGIN) for span in tile)
            part = image[:, :, rows, columns]
            window = counted_once(tile, part.shape[2:], image=SIDES, margin=MARGIN)
            with pytest.raises(StageCollectedError):
                every_kind(part, TilePooling(stage, window, None))
        known = [*known, *stage.values()]
    return known


def test_they_are_those_of_the_whole_image() -> None:
    recorded = RecordedPooling(FULL_IMAGE)
    every_kind(uneven(), recorded)
    found = collected(uneven(), PER_PASS)
    assert len(found) == len(recorded.values) == sum(PER_PASS)
    for value, expected in zip(found, recorded.values, strict=True):
        assert value.dtype == expected.dtype
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], recorded.values[0]), "counts have no rounding"


def test_one_pass_for_all_is_wrong() -> None:
    """What depends on an average of the same pass sees that of the tiles so far."""
    exact, hasty = collected(uneven(), PER_PASS), collected(uneven(), (5,))
    for number, (a, b) in enumerate(zip(exact, hasty, strict=True)):
        assert torch.allclose(a, b, rtol=1e-3) == (number < PER_PASS[0])


def test_every_entry_counts_the_averages_of_its_network() -> None:
    variants = [(each, sizes) for each in architectures() for sizes in each.variants.values()]
    for entry, sizes in variants:
        counts = entry.averages_per_pass(sizes)
        assert entry.pools_globally or not counts
        if counts:
            with torch.device("meta"):
                network = NetworkConfig(entry.family, sizes).build()
            assert sum(counts) == network.num_statistics - entry.aligned_corners
    exact = {entry.family for entry, sizes in variants if entry.averages_per_pass(sizes)}
    assert exact >= {"cidnet", "iat", "llflow", "mobileie", "restormer", "retinexformer"}
