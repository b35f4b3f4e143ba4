"""A network optimised for inference: the same weights and function.

channels_last, optionally bf16, and the repeated blocks compiled one by one; on a GPU the whole
network is then replayed as one CUDA graph. Only shapes that occur repeatedly are compiled: the
first image of a shape runs eagerly, without delay.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn

from mirnet.errors import first_line
from mirnet.hardware import find_compiler, use_kernel_cache
from mirnet.inference.tile_statistics import StageCollectedError, TilePooling
from mirnet.models.layers.pooling import GivenPooling, GlobalPooling, RecordedPooling
from mirnet.models.network import Network
from mirnet.models.ops.cuda_graph import CudaGraph

logger = logging.getLogger(__name__)

# a folder of mixed sizes compiles its most frequent shapes; the others run uncompiled
MAX_SHAPES = 4
# a shape is compiled at its second occurrence
COMPILE_AT = 2


def run_block(block: nn.Module, maps: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> Tensor:
    """Run one repeated block, with its own global statistics or with given ones."""
    out: Tensor = block(*maps, GivenPooling(values)) if values else block(*maps)
    return out


@functools.cache
def _compiled(compile: Callable[..., Any]) -> Callable[..., Tensor]:
    # once: the call alone takes a millisecond, of the nine that an H200 takes for an image
    compiled: Callable[..., Tensor] = compile(run_block, dynamic=False)
    return compiled


class SwitchedBlock(nn.Module):
    """A block that runs compiled while ``compiled_block`` of its network is set."""

    def __init__(self, block: nn.Module, network: FastNetwork) -> None:
        super().__init__()
        self.block = block
        self.num_statistics = int(block.num_statistics)  # type: ignore[arg-type]
        self._network = (network,)  # in a tuple, so that it is no submodule

    def forward(self, *inputs: Tensor | GlobalPooling) -> Tensor:
        """Feature maps, and the source of statistics if the block takes one."""
        run = self._network[0].compiled_block
        if run is None:
            out: Tensor = self.block(*inputs)
            return out
        # of one layout: equal blocks would be compiled once for each
        maps = tuple(
            each.contiguous(memory_format=torch.channels_last)
            for each in inputs
            if isinstance(each, Tensor)
        )
        given = [s.take(self.num_statistics) for s in inputs if isinstance(s, GivenPooling)]
        return run(self.block, maps, given[0] if given else ())


class FastNetwork:
    """A copy of a network, optimised for inference on one device.

    Args:
        model: not modified.
        dtype: float32 or bfloat16, of weights and feature maps; the image stays float32.
        compile: whether shapes that occur repeatedly are compiled.
        cache_dir: folder of compiled code for other processes; none: the system's temporary folder.
    """

    def __init__(
        self,
        model: Network,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compile: bool = True,
        cache_dir: Path | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.config = model.config
        self.architecture = model.architecture
        self.compiled_block: Callable[..., Tensor] | None = None
        self._can_compile = compile and can_compile(device)
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._compiled_shapes: set[tuple[int, ...]] = set()
        self._fixed = False
        self._graphs: dict[tuple[int, ...], CudaGraph] = {}
        self._records = device.type == "cuda"
        self._pool: Any = None  # the memory of the graphs
        placed = copy.deepcopy(model).eval().folded().requires_grad_(False).to(device, dtype)
        if device.type == "cuda":
            make_dense(placed)
        placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = self._with_switches(placed)
        if self._can_compile and cache_dir is not None:
            use_kernel_cache(cache_dir)

    def __call__(self, image: Tensor, values: Sequence[Tensor] | None = None) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1] -> (N, 3, H, W), unclamped, on the network's device.

        H and W are multiples of the network's ``size_multiple``, at least its ``min_size``.

        Args:
            values: global statistics, as :meth:`statistics` gives them; none: the image's own.
        """
        key = (*image.shape, int(values is not None))
        if key in self._graphs:
            return self._replayed(key, image, values)
        if self._wants_compiled(key):
            try:
                return self._run_compiled(key, image, values)
            except torch._dynamo.exc.TorchDynamoException as error:
                logger.warning("compilation failed, going on without it: %s", first_line(error))
                self._can_compile = False
        return self._run(image, values)

    def _run_compiled(
        self, key: tuple[int, ...], image: Tensor, values: Sequence[Tensor] | None
    ) -> Tensor:
        try:
            self.compiled_block = _compiled(torch.compile)
            if self._records:
                return self._recorded(key, image, values)
            return self._run(image, values)
        finally:
            self.compiled_block = None

    def _with_switches(self, model: Network) -> nn.Module:
        names = {module: name for name, module in model.named_modules()}
        for block in model.repeated_blocks():
            switched = SwitchedBlock(block, self)
            if block is model:
                return switched
            model.set_submodule(names[block], switched)
        return model

    def fix_shapes(self, shapes: Collection[tuple[int, ...]]) -> None:
        """Compile these shapes at their first image, and no others.

        Args:
            shapes: (N, C, H, W, 1 if global statistics are given, else 0).
        """
        self._fixed = True
        self._graphs.clear()
        self._pool = None  # a pool must not be reused after its graphs are deleted
        self._compiled_shapes = set(shapes)
        _allow_many_shapes()

    @torch.inference_mode()
    def statistics(self, image: Tensor, source: GlobalPooling) -> list[Tensor]:
        """The global statistics of a batch as computed by ``source``, in order of use."""
        recorded = RecordedPooling(source)
        self._model(self._placed(image), recorded)
        return recorded.values

    @torch.inference_mode()
    def collect(self, image: Tensor, source: TilePooling) -> None:
        """Add the statistics of a tile to those that ``source`` collects."""
        try:
            self._model(self._placed(image), source)
        except StageCollectedError:
            return
        raise RuntimeError(f"{self.architecture.family}: fewer averages than its entry counts")

    @torch.inference_mode()
    def _run(self, image: Tensor, values: Sequence[Tensor] | None) -> Tensor:
        given = () if values is None else (GivenPooling(values),)
        out: Tensor = self._model(self._placed(image), *given)
        return out

    @torch.inference_mode()
    def _replayed(
        self, key: tuple[int, ...], image: Tensor, values: Sequence[Tensor] | None
    ) -> Tensor:
        return self._graphs[key](self._placed(image), values)

    @torch.inference_mode()
    def _recorded(
        self, key: tuple[int, ...], image: Tensor, values: Sequence[Tensor] | None
    ) -> Tensor:
        """As :meth:`_run`, and records the CUDA graph of this shape if possible."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            self._graphs[key] = CudaGraph(self._run, self._placed(image), values, pool=self._pool)
        except torch._dynamo.exc.TorchDynamoException:
            raise
        except RuntimeError as error:
            logger.warning(
                "no CUDA graph could be recorded, going on without: %s", first_line(error)
            )
            self._records = False
            return self._run(image, values)
        return self._replayed(key, image, values)

    def _placed(self, image: Tensor) -> Tensor:
        return image.to(self.device).contiguous(memory_format=torch.channels_last)

    def _wants_compiled(self, key: tuple[int, ...]) -> bool:
        if not self._can_compile:
            return False
        if self._fixed:
            return key in self._compiled_shapes
        self._seen[key] += 1
        if self._seen[key] >= COMPILE_AT and len(self._compiled_shapes) < MAX_SHAPES:
            self._compiled_shapes.add(key)
            _allow_many_shapes()
        return key in self._compiled_shapes


def _allow_many_shapes() -> None:
    # all shapes and all kinds of blocks are versions of one function
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)


_FEW_GROUPS = 4


def make_dense(model: nn.Module) -> None:
    """Convert grouped convolutions to equivalent dense ones, with zero weights across groups.

    cuDNN transposes the feature maps before and after each grouped bf16 convolution, which takes
    half of the time of MIRNet-v2 (docs/benchmarks/inference.md); multiplying the zeros on tensor
    cores takes less where the groups are few. Depthwise convolutions stay: their dense form has as
    many times the weights as there are channels.
    """
    for conv in model.modules():
        if not isinstance(conv, nn.Conv2d) or not 1 < conv.groups <= _FEW_GROUPS:
            continue
        if conv.in_channels == conv.groups:
            continue
        parts = conv.weight.detach().chunk(conv.groups)
        height, width = conv.kernel_size
        dense = conv.weight.new_zeros(conv.out_channels, conv.in_channels, height, width)
        for number, part in enumerate(parts):
            rows, columns = part.shape[:2]
            dense[
                number * rows : (number + 1) * rows, number * columns : (number + 1) * columns
            ] = part
        conv.weight = nn.Parameter(dense, requires_grad=False)
        conv.groups = 1


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` works on the device; logs a warning if not."""
    if device.type != "cpu" or find_compiler() is not None:
        return True
    logger.warning("no C++ compiler: running uncompiled, slower")
    return False
