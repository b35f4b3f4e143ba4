"""Every loss term, on any number of workers, in parts and after a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import fs
from safetensors.torch import load_file, save_file
from torch import Tensor

from mirnet.config import Settings
from mirnet.errors import TrainingError, UsageError, WeightsError
from mirnet.objectives import registry
from mirnet.objectives.registry import objectives
from mirnet.objectives.total import Sample
from mirnet.params import Params, load_params
from mirnet.results import TrainResult
from mirnet.training.checkpoints import TrainState, read_progress
from mirnet.training.context import Context, InProcess
from mirnet.training.data.pairs import PackedPairs, pack_pairs
from mirnet.training.data.sampling import share
from mirnet.training.job import Job
from mirnet.training.loop import StepOf, TrainingPass, fit
from mirnet.training.meter import StepLosses
from mirnet.training.store import CheckpointStore
from tests.training.everything import registered, vgg
from tests.training.groups import GroupContext, Run, train_in_group
from tests.training.test_workers import train_until

TERMS = [each.name for each in objectives()]
BATCH = 5  # uneven over two workers


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


def params(loss: dict[str, float], *overrides: str) -> Params:
    recipe = (
        *("model.name=everything", f"train.loss={json.dumps(loss)}", "train.ema_decay=0.5"),
        *("train.num_epochs=2", "train.steps_per_epoch=3", f"train.batch_size={BATCH}"),
        *("train.patch_size=16", "train.precision=float32", "train.compile=false"),
        *("train.progressive=[]", "train.checkpoint_every=2", "train.lr=1e-3"),
        "train.perceptual_weights=vgg.safetensors",  # the job has the network itself
    )
    return load_params("cpu-mirnet", overrides=(*recipe, *overrides))


def pairs(count: int) -> PackedPairs:
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(count)]
    return pack_pairs([f"{n}" for n in range(count)], [(image // 4, image) for image in images])


def step(context: Context, asked: Params) -> tuple[list[Tensor | None], StepLosses]:
    """Gradients and losses of one step on this worker's part of a batch."""
    job = Job(asked, pairs(BATCH), pairs(2), "d1", features=vgg())
    state = TrainState.start(job, torch.device("cpu"))
    training_pass = TrainingPass(state)
    wrapped = context.wrap(training_pass, partial=True)
    generator = torch.Generator().manual_seed(0)
    low, high = torch.rand(2, BATCH, 3, 16, 16, generator=generator)
    part = share(BATCH, rank=context.rank, world_size=context.world_size)
    step_of = StepOf(context, asked.train.accumulate, wrapped, state.scaler)
    losses = step_of(low[part] / 4, high[part], batch_size=BATCH)
    return [p.grad for p in training_pass.parameters()], losses


def steps_in_group(folder: Path) -> list[list[Tensor | None]]:
    """Gradients of each term, in a process of the group."""
    with registered():
        return [step(GroupContext(folder), params({name: 1.0}))[0] for name in TERMS]


def train_everything(job: Job, folder: Path, until: int | None) -> None:
    """Train in a process of the group, to a step or to the end."""
    with registered():
        if until is None:
            train_in_group(job, folder)
        else:
            train_until(job, folder, until)


def alone(folder: Path) -> InProcess:
    return InProcess(CheckpointStore(fs.LocalFileSystem(), str(folder)))


@pytest.fixture(scope="module")
def of_two(group: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor | None]]:
    first, second = group(steps_in_group, tmp_path_factory.mktemp("none"))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    return dict(zip(TERMS, first, strict=True))


@pytest.mark.parametrize("name", TERMS)
def test_a_term_has_the_same_gradient_over_workers_and_in_parts(
    name: str, of_two: dict[str, list[Tensor | None]], tmp_path: Path
) -> None:
    expected, whole = step(alone(tmp_path), params({name: 1.0}))
    assert any(gradient is not None and bool(gradient.any()) for gradient in expected)
    assert whole.losses.shape == (BATCH,)
    in_parts, parts = step(alone(tmp_path), params({name: 1.0}, "train.accumulate=3"))
    torch.testing.assert_close(parts.losses, whole.losses)
    for other in (in_parts, of_two[name]):
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-7)


def test_a_run_with_all_terms_is_the_same_on_two_workers_and_after_a_restart(
    group: Run, tmp_path: Path
) -> None:
    job = Job(params(dict.fromkeys(TERMS, 1.0)), pairs(BATCH), pairs(2), "d1", features=vgg())
    folders = [tmp_path / name for name in ("one", "two", "stopped")]
    fit(alone(folders[0]), job)
    group(train_everything, job, folders[1], None)
    group(train_everything, job, folders[2], 5)
    group(train_everything, job, folders[2], None)
    found = []
    for folder in folders:
        with alone(folder).restored() as checkpoint:
            assert checkpoint is not None
            history = read_progress(checkpoint).history
            files = ("ema.safetensors", "discriminator.safetensors")
            found.append(({name: load_file(checkpoint / name) for name in files}, history))
    for (weights, history), exact in zip(found[1:], (False, True), strict=True):
        wanted, other = found[exact]
        rtol = 0.0 if exact else 1e-3
        torch.testing.assert_close(weights, wanted, rtol=rtol, atol=rtol / 10)
        for one, two in zip(other, history, strict=True):
            assert two.train_parts == pytest.approx(one.train_parts, rel=1e-4)
            assert sum(one.train_parts.values()) == pytest.approx(one.train_loss, rel=1e-5)


def test_a_run_reads_the_file_of_the_perceptual_term(
    train: Callable[..., TrainResult],
    small_params: Callable[..., Params],
    in_process: Settings,
    tmp_path: Path,
) -> None:
    file = tmp_path / "vgg.safetensors"
    asked = small_params(
        "train.loss={l1: 1, perceptual: 0.1}",
        f"train.perceptual_weights={file}",
        "train.num_epochs=1",
    )
    with pytest.raises(WeightsError, match=r"vgg\.safetensors: no such file"):
        train(asked, in_process)
    save_file(vgg().state_dict(), file)
    (epoch,) = train(asked, in_process).history
    assert epoch.train_parts["perceptual"] > 0


def test_a_checkpoint_without_parts_is_resumed(tmp_path: Path) -> None:
    job = Job(params({"l1": 1.0, "psnr": 1.0}), pairs(BATCH), pairs(2), "d1")
    train_alone_until(job, tmp_path, 5)
    (path,) = tmp_path.glob("*/progress.json")
    written = json.loads(path.read_text())
    assert len(written["sums"]) == 8 + 2 * 2
    path.write_text(json.dumps(written | {"sums": written["sums"][:8]}))
    fit(alone(tmp_path), job)
    with alone(tmp_path).restored() as checkpoint:
        assert checkpoint is not None
        first, second = read_progress(checkpoint).history
    assert set(first.train_parts) == {"l1", "psnr"}
    assert second.train_parts == {}, "its first steps are not known"


def test_a_run_with_other_weights_of_the_perceptual_term_is_refused(tmp_path: Path) -> None:
    job = Job(params({"perceptual": 1.0}), pairs(BATCH), pairs(2), "d1", features=vgg())
    train_alone_until(job, tmp_path, 3)
    other = vgg()
    other.features["0"].weight.data[0, 0, 0, 0] += 1
    with pytest.raises(TrainingError, match="started with weights of the perceptual term"):
        fit(alone(tmp_path), replace(job, features=other))


def train_alone_until(job: Job, folder: Path, until: int) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    update = TrainState.update
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            TrainState, "update", lambda s: stop() if s.progress.step == until else update(s)
        )
        fit(alone(folder), job)


@pytest.mark.parametrize("name", [each.name for each in objectives() if not each.reference])
def test_a_term_without_a_reference_does_not_read_it(name: str) -> None:
    entry = registry.by_name(name)
    assert not any(detail.endswith("_high") for detail in entry.details)
    sample = torch.rand(2, 3, 16, 16)
    details = {key: torch.rand(2, 3, 16, 16) for key in entry.details}
    if "illuminations" in details:
        details = {key: torch.rand(2, 2, 3, 16, 16) for key in details}
    values = [
        entry.load()(Sample(output=sample, low=sample, high=high, details=details))
        for high in torch.rand(2, 2, 3, 16, 16)
    ]
    assert torch.equal(*values)


def test_terms_that_are_unknown_or_do_not_fit_the_network_are_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.loss.*'charbonier', did you mean charbonnier\?"):
        load_params("cpu-mirnet", overrides=("train.loss={charbonier: 1}",))
    with pytest.raises(UsageError, match="curve-smoothness reads curves, which MIRNet does not"):
        load_params("cpu-mirnet", overrides=("train.loss={curve-smoothness: 1}",))
    with pytest.raises(
        UsageError, match=r"perceptual needs train\.perceptual_weights=FILE of a VGG"
    ):
        load_params("cpu-mirnet", overrides=("train.loss={perceptual: 1}",))
    with pytest.raises(UsageError, match=r"train\.loss"):
        load_params("cpu-mirnet", overrides=("train.loss={l1: -1}",))
    with pytest.raises(ValueError, match="an objective named l1 already"):
        registry.register(registry.by_name("l1"))
