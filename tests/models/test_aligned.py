"""Resizing with aligned corners: a tile gets what the whole image has there."""

from __future__ import annotations

import pytest
import torch

from mirnet.models.layers.aligned import aligned_resize


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 2), (2, 1), (6, 1)])
def test_tile_is_part_of_the_whole(numerator: int, denominator: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 40, 64)
    whole = aligned_resize(
        image, 40 * numerator // denominator, 64 * numerator // denominator, frame=None
    )
    frame = torch.tensor([8.0, 24.0, 40.0, 64.0], dtype=torch.float64)
    tile = image[:, :, 8:32, 24:56]
    out = aligned_resize(
        tile, 24 * numerator // denominator, 32 * numerator // denominator, frame=frame
    )
    rows, columns = (start * numerator // denominator for start in (8, 24))
    there = whole[:, :, rows : rows + out.shape[2], columns : columns + out.shape[3]]
    inner = slice(2 * numerator, -2 * numerator)  # the last samples need pixels behind the tile
    difference = (out - there)[:, :, inner, inner]
    assert difference.numel() > 0
    assert difference.abs().max() < 1e-5
    # by the tile's own size they would be elsewhere
    alone = aligned_resize(tile, out.shape[2], out.shape[3], frame=None)
    assert (alone - there)[:, :, inner, inner].abs().max() > 1e-2
