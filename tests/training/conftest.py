"""Small pairs with a learnable relation, in the LoL layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mirnet.config import Settings
from mirnet.params import Params, load_params
from mirnet.results import TrainResult
from mirnet.training import Listener, TrainRequest, train_model
from tests.training.children import Children
from tests.training.groups import Run, worker_group


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other in tiny layers cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs of 48x40 pixels; the low is a quarter of the high."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for side in ("low", "high"):
        (root / "our485" / side).mkdir(parents=True)
    for number in range(1, 9):
        coarse = rng.integers(40, 256, (5, 6, 3), dtype=np.uint8)
        high = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
        low = Image.fromarray((np.asarray(high) // 4).astype(np.uint8))
        high.save(root / "our485" / "high" / f"{number}.png")
        low.save(root / "our485" / "low" / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two workers without Ray."""
    with worker_group(2, tmp_path_factory.mktemp("group")) as run:
        yield run


@pytest.fixture
def train_ids() -> tuple[str, ...]:
    return tuple(f"our485/{n}.png" for n in range(1, 6))


@pytest.fixture
def val_ids() -> tuple[str, ...]:
    return tuple(f"our485/{n}.png" for n in range(6, 9))


def recipe(*overrides: str) -> Params:
    """A small network and a recipe of seconds, with overrides."""
    base = (
        "model.n_feat=8",
        "train.num_epochs=2",
        "train.steps_per_epoch=3",
        "train.batch_size=4",
        "train.patch_size=16",
        "train.precision=float32",
        "train.warmup_steps=2",
        "train.compile=false",
        "train.progressive=[]",
        "train.ema_decay=null",
        "train.validate_every=1",
    )
    return load_params("cpu-mirnet", overrides=(*base, *overrides))


@pytest.fixture
def small_params() -> Callable[..., Params]:
    return recipe


@pytest.fixture
def train(
    pairs_dir: Path,
    train_ids: tuple[str, ...],
    val_ids: tuple[str, ...],
    tmp_path: Path,
) -> Callable[..., TrainResult]:
    """Train on the small pairs; everything else as given."""

    def run(params: Params, settings: Settings, **changes: Any) -> TrainResult:
        arguments: dict[str, Any] = {
            "root": pairs_dir,
            "train_ids": train_ids,
            "val_ids": val_ids,
            "digest": "d1",
            "run_name": "run",
            "model_dir": tmp_path / "model",
        }
        hears = {name: changes.pop(name) for name in list(changes) if name.startswith("on_")}
        request = TrainRequest(params=params, settings=settings, **(arguments | changes))
        return train_model(request, Listener(**hears))

    return run


@pytest.fixture
def in_process(settings: Settings) -> Settings:
    return settings.model_copy(update={"ray_address": "in-process"})


@pytest.fixture
def children(
    pairs_dir: Path, train_ids: tuple[str, ...], val_ids: tuple[str, ...], tmp_path: Path
) -> Iterator[Children]:
    """Starts trainings of the small pairs in processes of their own."""
    shared = {"root": str(pairs_dir), "train_ids": train_ids, "val_ids": val_ids}
    children = Children(tmp_path, shared)
    yield children
    children.end()
