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
    """A run of a network at one shape, recorded once and replayed with other values.

    A warm-up run on the same static tensors triggers all compilation first: compiled code is
    selected by all properties of its inputs, and nothing may be compiled during the capture.

    Args:
        run: maps an image on the device, and global statistics or None, to an image.
        pool: from :func:`torch.cuda.graph_pool_handle`. Graphs may share one, since none keeps data
            in it between replays.
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
            torch.cuda.set_stream(stream)  # a failed capture leaves its own stream active
            raise

    def __call__(self, image: Tensor, values: Sequence[Tensor] | None) -> Tensor:
        """As ``run``, with inputs of the recorded shapes."""
        self._image.copy_(image)
        for held, value in zip(self._values, values or (), strict=True):
            held.copy_(value)
        self._graph.replay()
        return self._out.clone()
