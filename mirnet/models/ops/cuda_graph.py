"""One run of a network as a CUDA graph: its thousands of kernels are launched at once.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor, Sequence[Tensor] | None], Tensor]


class CudaGraph:
    """A run at one shape, recorded once and replayed with other values.

    The first run, which compiles what is to be compiled, works on the tensors that are recorded:
    compiled code is chosen by all properties of its inputs, and nothing may be compiled meanwhile.

    Args:
        run: an image on the device, and global statistics or None, to an image.
        pool: of :func:`torch.cuda.graph_pool_handle`. Graphs may share one, as none keeps anything
            there from one replay to the next.
    """

    def __init__(
        self, run: Run, image: Tensor, values: Sequence[Tensor] | None, *, pool: Any
    ) -> None:
        self._image = image.clone()
        self._values = [] if values is None else [value.clone() for value in values]
        given = None if values is None else self._values
        run(self._image, given)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may use the device meanwhile
        stream = torch.cuda.current_stream(image.device)
        try:
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._out = run(self._image, given)
        except BaseException:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own behind
            raise

    def __call__(self, image: Tensor, values: Sequence[Tensor] | None) -> Tensor:
        """As ``run``; the shapes are those it was recorded with."""
        self._image.copy_(image)
        for held, value in zip(self._values, values or (), strict=True):
            held.copy_(value)
        self._graph.replay()
        return self._out.clone()
