from __future__ import annotations

import pytest

from mirnet.batch.summary import exceeds


@pytest.mark.parametrize(
    ("share", "count", "total", "more"),
    [
        (0.1, 50, 500, False),
        (0.1, 51, 500, True),
        (0.29, 29, 100, False),  # 0.29 * 100 is 28.99... in binary
        (0.29, 30, 100, True),
        (0.0, 1, 500, True),
        (0.0, 0, 0, False),
    ],
)
def test_exactly_the_share_is_not_more(share: float, count: int, total: int, more: bool) -> None:
    assert exceeds(share, count, total) is more
