"""The margin around an image: mirrored pixels, as many as asked for."""

from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given, strategies as st

from mirnet.models.margin import extended, mirrored


@given(size=st.integers(1, 60), before=st.integers(0, 90), after=st.integers(0, 90))
def test_mirrors_as_numpy_does(size: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    assert np.array_equal(mirrored(size, start=-before, stop=size + after), expected)


@given(size=st.integers(8, 60), margin=st.sampled_from([4, 8, 16, 32]))
def test_an_exported_graph_mirrors_likewise(size: int, margin: int) -> None:
    expected = mirrored(size, start=-margin, stop=size + margin)
    with patch.object(torch.compiler, "is_exporting", return_value=True):
        assert torch.equal(mirrored(size, start=-margin, stop=size + margin), expected)


def test_more_at_the_bottom_and_right_up_to_multiples() -> None:
    image = torch.rand(2, 3, 5, 9)
    grown = extended(image, margin=8, multiple=4)
    assert grown.shape == (2, 3, 24, 28)
    assert torch.equal(grown[:, :, 8:13, 8:17], image)
    assert torch.equal(grown[:, :, 7], grown[:, :, 9])
    assert extended(image, margin=0, multiple=4, least=20).shape == (2, 3, 20, 20)
