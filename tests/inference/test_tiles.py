import numpy as np
from hypothesis import given, strategies as st

from mirnet.inference.crop_statistics import CROP, crop_corners
from mirnet.inference.tiles import spans, tile_shape, tiles


@given(
    size=st.integers(1, 5000),
    tile=st.integers(20, 200).map(lambda n: 4 * n),
    halo=st.integers(4, 9).map(lambda n: 4 * n),
    margin=st.sampled_from([0, 4, 16]),
)
def test_every_pixel_is_kept_once_with_its_halo(
    size: int, tile: int, halo: int, margin: int
) -> None:
    found = spans(size, tile=tile, halo=halo, margin=margin)
    kept = np.concatenate([np.arange(s.keep_start, s.keep_stop) for s in found])
    assert np.array_equal(kept, np.arange(size))
    for span in found:
        assert span.start % 4 == 0
        assert span.stop - span.start <= tile
        whole = size + 2 * margin
        assert -(-(span.stop - span.start) // 4) * 4 == min(tile, -(-whole // 4) * 4)
        assert span.start == -margin or span.keep_start - span.start >= halo
        assert span.stop == size + margin or span.stop - span.keep_stop >= halo
    assert (found[0].start, found[-1].stop) == (-margin, size + margin)


@given(
    height=st.integers(1, 20_000),
    width=st.integers(1, 20_000),
    max_pixels=st.integers(320**2, 2048**2),
    halo=st.sampled_from([16, 64]),
    margin=st.sampled_from([0, 16]),
)
def test_tiles_of_an_image_fit_and_waste_less_than_square_ones(
    height: int, width: int, max_pixels: int, halo: int, margin: int
) -> None:
    shape = tile_shape(height, width, max_pixels=max_pixels, halo=halo, margin=margin)
    assert shape[0] * shape[1] <= max_pixels
    found = list(tiles(height, width, max_pixels=max_pixels, halo=halo, margin=margin))
    area = sum(
        (rows.keep_stop - rows.keep_start) * (columns.keep_stop - columns.keep_start)
        for rows, columns in found
    )
    assert area == height * width
    read = len(found) * shape[0] * shape[1]
    square = int(max_pixels**0.5) // 4 * 4
    padded = [min(square, -(-(size + 2 * margin) // 4) * 4) for size in (height, width)]
    counts = [len(spans(size, tile=square, halo=halo, margin=margin)) for size in (height, width)]
    assert read <= counts[0] * counts[1] * padded[0] * padded[1]


@given(height=st.integers(CROP, 6000), width=st.integers(CROP, 6000), count=st.integers(1, 40))
def test_crops_lie_inside_and_are_as_many_as_asked_for(height: int, width: int, count: int) -> None:
    corners = crop_corners(height, width, count=count)
    cover = -(-height // CROP) * -(-width // CROP)
    assert min(count, cover) <= len(corners) <= cover
    assert len(np.unique(corners, axis=0)) == len(corners)
    assert len(corners) < count + len(np.unique(corners[:, 1]))
    assert (corners >= 0).all()
    assert (corners[:, 0] + CROP <= height).all()
    assert (corners[:, 1] + CROP <= width).all()
