"""Sources of the global averages of a network.

By default a network averages over its input. Tiled inference passes the statistics of the whole
image, so that every tile is processed as a part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mirnet.models import ops

LEVELS = 256
_SHORTEST = 1e-12  # of channels that are 0 everywhere


class GlobalPooling:
    """Averages over the whole maps."""

    @property
    def frame(self) -> Tensor | None:
        """Place of the input in the whole image, for :mod:`~mirnet.models.layers.aligned`.

        (4,) float64: first row, first column, height and width of the whole image, in pixels of the
        input; none: the input is the whole image.
        """
        return None

    def mean(self, *streams: Tensor) -> Tensor:
        """Global average of the sum of maps (N, C, H, W): (N, C, 1, 1).

        The mean of a sum is the sum of the means, so the sum itself is never formed.
        """
        total = ops.global_mean(streams[0])
        for stream in streams[1:]:
            total = total + ops.global_mean(stream)
        return total

    def attention_pool(self, x: Tensor, scores: Tensor, *, heads: int = 1) -> Tensor:
        """Averages of x with softmaxes of scores over all pixels.

        Args:
            x: (N, C, H, W); the first C / heads channels belong to the first head.
            scores: (N, heads * Q, H, W), of Q queries per head.

        Returns:
            (N, C, Q, 1).
        """
        n, c = x.shape[:2]
        return pooled(x.reshape(n, c, -1), scores.reshape(n, scores.shape[1], -1), heads)

    def correlation(self, a: Tensor, b: Tensor, *, heads: int) -> Tensor:
        """Cosines between channels, over all pixels, within each head.

        Args:
            a, b: (N, C, H, W); the first C / heads channels belong to the first head.

        Returns:
            (N, heads, C / heads of a, C / heads of b).
        """
        return correlated(a.flatten(2), b.flatten(2), heads)

    def histogram(self, image: Tensor) -> Tensor:
        """Share of the pixels at each level of 8 bits.

        Args:
            image: (N, C, H, W) in [0, 1].

        Returns:
            (N, C, 256, 1) float64.
        """
        return histogram(image.flatten(2))


class GivenPooling(GlobalPooling):
    """Precomputed statistics, in the order in which the network requests them.

    Behind them is the frame of the input, if the entry of the network has ``aligned_corners``.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self._values = values
        self._position = 0

    @property
    def frame(self) -> Tensor | None:
        return self._values[-1]

    def take(self, count: int) -> tuple[Tensor, ...]:
        """The next ``count`` statistics."""
        start, self._position = self._position, self._position + count
        return tuple(self._values[start : self._position])

    def mean(self, *streams: Tensor) -> Tensor:
        return self.take(1)[0].to(streams[0].dtype)

    def attention_pool(self, x: Tensor, scores: Tensor, *, heads: int = 1) -> Tensor:
        del scores, heads
        return self.take(1)[0].to(x.dtype)

    def correlation(self, a: Tensor, b: Tensor, *, heads: int) -> Tensor:
        del b, heads
        return self.take(1)[0].to(a.dtype)

    def histogram(self, image: Tensor) -> Tensor:
        del image
        return self.take(1)[0].double()


class RecordedPooling(GlobalPooling):
    """Returns the statistics of another source and records a copy of each."""

    def __init__(self, source: GlobalPooling) -> None:
        self.source = source
        self.values: list[Tensor] = []

    def mean(self, *streams: Tensor) -> Tensor:
        return self._kept(self.source.mean(*streams))

    def attention_pool(self, x: Tensor, scores: Tensor, *, heads: int = 1) -> Tensor:
        return self._kept(self.source.attention_pool(x, scores, heads=heads))

    def correlation(self, a: Tensor, b: Tensor, *, heads: int) -> Tensor:
        return self._kept(self.source.correlation(a, b, heads=heads))

    def histogram(self, image: Tensor) -> Tensor:
        return self._kept(self.source.histogram(image))

    def _kept(self, value: Tensor) -> Tensor:
        self.values.append(value.detach().clone(memory_format=torch.contiguous_format))
        return value


def pooled(x: Tensor, scores: Tensor, heads: int) -> Tensor:
    """:meth:`GlobalPooling.attention_pool` of flat maps, (N, C, P) and (N, heads * Q, P)."""
    n, c, num_pixels = x.shape
    precise = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.to(precise).softmax(dim=2).to(x.dtype)
    by_head = weights.reshape(n * heads, -1, num_pixels).transpose(1, 2)
    out: Tensor = x.reshape(n * heads, c // heads, num_pixels) @ by_head
    return out.reshape(n, c, -1, 1)


def correlated(a: Tensor, b: Tensor, heads: int) -> Tensor:
    """:meth:`GlobalPooling.correlation` of flat maps, (N, C, P)."""
    n, _, num_pixels = a.shape
    a, b = (x.reshape(n, heads, -1, num_pixels) for x in (a, b))
    norm_a, norm_b = (
        torch.linalg.vector_norm(x, dim=3, dtype=torch.promote_types(x.dtype, torch.float32))
        for x in (a, b)
    )
    return cosines(a @ b.transpose(2, 3), norm_a, norm_b).to(a.dtype)


def cosines(products: Tensor, norm_a: Tensor, norm_b: Tensor) -> Tensor:
    """Cosines (N, heads, A, B) of scalar products and of lengths, (N, heads, A or B)."""
    lengths = norm_a.clamp_min(_SHORTEST)[..., None] * norm_b.clamp_min(_SHORTEST)[:, :, None]
    return products / lengths


def histogram(flat: Tensor) -> Tensor:
    """:meth:`GlobalPooling.histogram` of flat maps, (N, C, P)."""
    return (level_counts(flat) / flat.shape[2])[..., None]


def level_counts(flat: Tensor) -> Tensor:
    """Number of pixels at each level of 8 bits: (N, C, P) in [0, 1] -> (N, C, 256) float64."""
    levels = (flat * (LEVELS - 1)).round().clamp(0, LEVELS - 1).long()
    ones = torch.ones_like(flat, dtype=torch.float64)
    return ones.new_zeros(*flat.shape[:2], LEVELS).scatter_add(2, levels, ones)


FULL_IMAGE = GlobalPooling()
