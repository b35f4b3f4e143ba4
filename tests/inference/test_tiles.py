import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mirnet.inference.mosaic import CROP, crop_corners
from mirnet.inference.tiles import spans


@given(
    size=st.integers(1, 5000),
    tile=st.integers(20, 200).map(lambda n: 4 * n),
    halo=st.integers(1, 9).map(lambda n: 4 * n),
)
def test_every_pixel_is_kept_once_with_its_halo(size: int, tile: int, halo: int) -> None:
    found = spans(size, tile=tile, halo=halo)
    kept = np.concatenate([np.arange(s.keep_start, s.keep_stop) for s in found])
    assert np.array_equal(kept, np.arange(size))
    for span in found:
        assert span.start % 4 == 0
        assert span.stop - span.start <= tile
        assert -(-(span.stop - span.start) // 4) * 4 == min(tile, -(-size // 4) * 4)
        assert span.start == 0 or span.keep_start - span.start >= halo
        assert span.stop == size or span.stop - span.keep_stop >= halo


@given(height=st.integers(CROP, 6000), width=st.integers(CROP, 6000), count=st.integers(1, 40))
def test_crops_lie_inside_and_are_not_too_many(height: int, width: int, count: int) -> None:
    corners = crop_corners(height, width, count=count)
    assert 1 <= len(corners) <= max(count, 1)
    assert (corners >= 0).all()
    assert (corners[:, 0] + CROP <= height).all()
    assert (corners[:, 1] + CROP <= width).all()
