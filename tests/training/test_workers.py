"""Batch statistics over workers: two processes compute what one does with the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from pyarrow import fs
from safetensors.torch import load_file
from torch import Tensor, nn

from mirnet.config import Settings
from mirnet.data.loading import load_pairs
from mirnet.errors import UsageError
from mirnet.models import build
from mirnet.params import load_params
from mirnet.training.checkpoints import TrainState, read_progress
from mirnet.training.context import InProcess
from mirnet.training.data.pairs import pack_pairs
from mirnet.training.data.sampling import share
from mirnet.training.job import Job
from mirnet.training.launch import check_request
from mirnet.training.loop import fit
from mirnet.training.request import TrainRequest
from mirnet.training.store import CheckpointStore
from mirnet.training.workers import GlobalBatchNorm2d, Workers, share_batch_statistics
from tests.training.groups import Run, train_in_group

SIZES: dict[str, dict[str, int]] = {
    "iat": {"width": 4},
    "mobileie": {"channels": 3, "expansion": 1},
}
BATCH = 5  # uneven over two workers


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sgd_steps(name: str, *, shared: bool) -> dict[str, Tensor]:
    """State of a network after three steps on its part of a batch; shared: of this worker."""
    torch.manual_seed(3)
    model = build(name, **SIZES[name]).train()
    images, targets = torch.rand(2, BATCH, 3, 16, 20)
    wrapped: nn.Module = model
    part, scale = slice(None), 1 / BATCH
    if shared:
        part = share(BATCH, rank=dist.get_rank(), world_size=dist.get_world_size())
        wrapped, scale = Workers().wrap(model), dist.get_world_size() / BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss = (wrapped(images[part]) - targets[part]).square().mean((1, 2, 3))
        (loss.sum() * scale).backward()
        optimizer.step()
    return dict(model.state_dict())


def shared_steps(name: str) -> dict[str, Tensor]:
    return sgd_steps(name, shared=True)


@pytest.mark.parametrize("name", SIZES)
def test_two_workers_give_the_weights_and_running_statistics_of_one(name: str, group: Run) -> None:
    expected = sgd_steps(name, shared=False)
    first, second = group(shared_steps, name)
    for key, value in expected.items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-6, msg=key)
        assert torch.equal(first[key], second[key]), f"{key} differs between workers"


def test_the_loop_gives_the_same_run_on_two_workers_and_after_a_restart(
    group: Run, pairs_dir: Path, tmp_path: Path
) -> None:
    ids = [f"our485/{number}.png" for number in range(1, 9)]
    train, val = (pack_pairs(part, load_pairs(pairs_dir, part)) for part in (ids[:5], ids[5:]))

    def job(*overrides: str) -> Job:
        recipe = (
            *("model.name=mobileie", "model.channels=3", "model.expansion=1", "train.lr=1e-3"),
            *("train.num_epochs=2", "train.steps_per_epoch=3", f"train.batch_size={BATCH}"),
            *("train.patch_size=16", "train.precision=float32", "train.compile=false"),
            *("train.progressive=[]", "train.ema_decay=0.5", "train.checkpoint_every=2"),
        )
        return Job(load_params("cpu-mirnet", overrides=(*recipe, *overrides)), train, val, "d1")

    folders = [tmp_path / name for name in ("one", "two", "stopped")]
    stores = [CheckpointStore(fs.LocalFileSystem(), str(folder)) for folder in folders]
    fit(InProcess(stores[0]), job())
    group(train_in_group, job(), folders[1])
    group(train_until, job(), folders[2], 4)
    group(train_in_group, job(), folders[2])
    states, histories = [], []
    for store in stores:
        with store.latest() as folder:
            assert folder is not None
            states.append({n: load_file(folder / f"{n}.safetensors") for n in ("weights", "ema")})
            histories.append(read_progress(folder).history)
    for one, two in zip(*histories[:2], strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert two.val_psnr == pytest.approx(one.val_psnr, abs=0.01)
    for kind, tensors in states[0].items():
        for key, value in tensors.items():
            torch.testing.assert_close(states[1][kind][key], value, rtol=1e-3, atol=1e-4, msg=key)
            assert torch.equal(states[1][kind][key], states[2][kind][key]), f"{key} after a restart"


class Stopped(Exception):
    """Raised in place of a loss of power."""


def train_until(job: Job, folder: Path, step: int) -> None:
    """Train until a step is done, without its checkpoint where none is due."""
    update = TrainState.update

    def counted(state: TrainState) -> None:
        if state.progress.step == step:
            raise Stopped
        update(state)

    with patch.object(TrainState, "update", counted), pytest.raises(Stopped):
        train_in_group(job, folder)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_values_gradients_and_running_statistics_are_those_of_torch(momentum: float | None) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    known_twice = nn.ModuleList([copy.deepcopy(plain)] * 2)
    share_batch_statistics(known_twice)
    shared = known_twice[1]
    assert isinstance(shared, GlobalBatchNorm2d)
    for _ in range(2):
        x = torch.rand(2, 3, 4, 5, dtype=torch.float64) + 1e3  # the square of the mean is 1e7 times
        results = []
        for norm in (plain, shared):
            given = x.clone().requires_grad_()
            out = norm(given)
            norm.zero_grad()
            (out * x.sin()).sum().backward()
            results.append((out, given.grad, norm.weight.grad, norm.bias.grad))
        torch.testing.assert_close(*results, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(dict(shared.state_dict()), dict(plain.state_dict()))
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x))
    shared.train()
    assert torch.autograd.gradcheck(shared, (torch.rand(2, 3, 2, 3).double().requires_grad_(),))


_LATER_ONE = "train.progressive=[{start: 0.5, patch_size: 32, batch_size: 1}]"


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (("model.name=mobileie", "train.batch_size=1"), "MobileIE"),
        (("model.name=mobileie", _LATER_ONE), "MobileIE"),
        (("model.name=unet-s", "train.batch_size=1", "train.patch_size=16"), "U-Net"),
        (("model.name=unet-s", "train.batch_size=1"), None),
        (("model.name=sci", "train.batch_size=1"), None),
        (("model.name=iat", "train.batch_size=1"), None),
        (("model.name=mobileie", "train.batch_size=2"), None),
    ],
)
def test_a_batch_that_has_no_statistics_is_refused_by_name(
    overrides: tuple[str, ...], refused: str | None, in_process: Settings, tmp_path: Path
) -> None:
    params = load_params("cpu-mirnet", overrides=("train.progressive=[]", *overrides))
    request = TrainRequest(
        root=tmp_path,
        train_ids=("a",),
        val_ids=("b",),
        params=params,
        settings=in_process,
        digest="d1",
        run_name="run",
        model_dir=tmp_path,
    )
    expected = pytest.raises(UsageError, match=f"batch_size 1: {refused} normalises over")
    with expected if refused else nullcontext():
        check_request(request)


@pytest.mark.usefixtures("alone")
def test_a_batch_of_one_value_and_other_normalisations_are_refused() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3))
    share_batch_statistics(norm)
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm(torch.zeros(1, 3, 1, 1))
    with pytest.raises(TypeError, match="0: statistics over workers"):
        share_batch_statistics(nn.Sequential(nn.BatchNorm1d(3)))
