"""Files that lie about tensors, groups on GPUs, statistics of several crops at once, exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mirnet.errors import WeightsError
from mirnet.inference.network import make_dense
from mirnet.models import build, read_checkpoint
from mirnet.models.layers.pooling import GlobalPooling
from mirnet.models.llflow.encoder import equalised
from mirnet.models.registry import NetworkConfig
from tests.models.test_zoo import SMALL


def sci_state() -> dict[str, torch.Tensor]:
    """As published: the tensors of the convolution stand there twice."""
    state = dict(build("sci").state_dict())
    state |= {
        name.replace("enhance.conv.", "enhance.blocks.0."): value
        for name, value in state.items()
        if name.startswith("enhance.conv.")
    }
    return state


def test_tensors_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    """Else reading their values would take terabytes."""
    state = sci_state() | {"surprise.weight": torch.zeros(1).expand(1 << 40)}
    torch.save(state, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").stat().st_size < 20_000
    with pytest.raises(WeightsError, match=r"surprise\.weight has more elements than the file"):
        read_checkpoint(tmp_path / "net.pt")


def test_no_network_is_built_for_a_file_without_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names alone tell sizes, up to gigabytes."""
    state = {name: value for name, value in sci_state().items() if "out_conv" not in name}
    torch.save(state, tmp_path / "net.pt")

    def allocated(config: NetworkConfig) -> torch.nn.Module:
        network = config.architecture.build(**config.sizes.model_dump())
        assert all(p.is_meta for p in network.parameters()), "memory for the network was taken"
        return network

    monkeypatch.setattr(NetworkConfig, "build", allocated)
    with pytest.raises(WeightsError, match=r"missing 2: enhance\.out_conv\.0\.bias"):
        read_checkpoint(tmp_path / "net.pt")


def test_second_names_of_tensors_must_agree(tmp_path: Path) -> None:
    state = sci_state()
    torch.save(state, tmp_path / "net.pt")
    read_checkpoint(tmp_path / "net.pt")
    state["enhance.blocks.0.0.weight"] = state["enhance.blocks.0.0.weight"] + 1
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="are one tensor and differ"):
        read_checkpoint(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["iat", "zerodcepp", "restormer-s", "cidnet-s"])
def test_depthwise_convolutions_are_not_made_dense(name: str) -> None:
    network = build(name)
    before = sum(p.numel() for p in network.parameters())
    make_dense(network)
    assert sum(p.numel() for p in network.parameters()) < 1.5 * before


def test_one_histogram_serves_several_crops() -> None:
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    class OfTheWhole(GlobalPooling):
        def histogram(self, image: torch.Tensor) -> torch.Tensor:
            return super().histogram(image[:1])

    together = equalised(image, OfTheWhole())
    assert torch.equal(together[:1], equalised(image[:1], OfTheWhole()))


BATCH = 11  # no number of channels is a multiple of it


class PlainLengths(TorchFunctionMode):
    """Counts lengths and loops of tensors of a batch: plain numbers in a traced graph.

    ``len(x)`` and ``for image in x`` make the batch of an exported graph that of its example, where
    ``x.shape[0]`` stays free.
    """

    def __init__(self) -> None:
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # a loop unbinds the first dimension
        plain = func is Tensor.__len__ or (func is Tensor.unbind and args[1:] in ((), (0,)))
        if plain and args[0].shape[0] % BATCH == 0:
            self.count += 1
        return func(*args, **(kwargs or {}))


def plain_lengths(network: torch.nn.Module) -> int:
    with PlainLengths() as found, torch.no_grad():
        network(torch.rand(BATCH, 3, 32, 32))
    return found.count


def test_no_network_fixes_the_batch_of_its_exported_graph() -> None:
    """In place of an export of each, which takes minutes."""
    sizes = SMALL | {name: {"n_feat": 16, "num_rrg": 1} for name in ("mirnet-xs", "mirnet-v2")}
    for name, small in sizes.items():
        assert plain_lengths(build(name, **small).eval().folded()) == 0, name


@pytest.mark.parametrize("fixed", [lambda x: x + len(x), lambda x: sum(x)], ids=["len", "loop"])
def test_fixed_batches_are_seen(fixed: Callable[[Tensor], Tensor]) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return fixed(image)

    assert plain_lengths(Fixed()) == 1
