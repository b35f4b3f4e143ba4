"""A network that the package does not know, added by one entry: trained, tiled, exported, kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from mirnet.config import Settings
from mirnet.errors import UsageError, WeightsError
from mirnet.inference import Enhancer, network as fast
from mirnet.models import Network, build, export, load_model, read_checkpoint, registry, save_model
from mirnet.models.published import PublishedFormat
from mirnet.models.registry import Architecture, Sizes, register, unregister
from mirnet.params import load_params
from mirnet.tracking import registry as versions, track
from mirnet.tracking.trust import gate_decision
from mirnet.training import Listener, TrainRequest, train_model


class ToySizes(Sizes):
    width: int = Field(ge=1, le=64, description="channels between the convolutions")


class Toy(Network):
    """Two convolutions, with a normalisation whose running statistics must be kept as well."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.norm(self.first(image.to(self.first.weight.dtype))).relu()
        out: Tensor = image + self.second(features)
        return out


def published_sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    return {"width": len(state["net.first.weight"])} if "net.first.weight" in state else None


def published_weights(state: Mapping[str, Tensor], sizes: ToySizes) -> dict[str, Tensor]:
    if len(state["net.first.bias"]) != sizes.width:
        raise WeightsError("net.first.bias does not fit net.first.weight")
    return {key.removeprefix("net."): value for key, value in state.items()}


ENTRY = Architecture(
    family="toy",
    title="Toy",
    paper="none",
    licence=None,
    variants={"toy": ToySizes(width=8), "toy-l": ToySizes(width=16)},
    build=Toy,
    peak_values=lambda sizes: 3.0 * sizes.width,
    halo=4,
    margin=2,
    objective={"l1": 1.0},
    batch_statistics=True,
    exports=frozenset({"pt2"}),
    published=lambda: PublishedFormat(published_sizes, published_weights),
)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register(ENTRY)
    yield
    unregister("toy")
    assert "toy" not in registry.list_architectures()


def request(root: Path, settings: Settings, *overrides: str) -> TrainRequest:
    """Two epochs of 20 steps on the pairs of ``root``, in this process."""
    ids = [f"our485/{number}.png" for number in range(1, 7)]
    recipe = (
        *("model.name=toy-l", "train.num_epochs=2", "train.steps_per_epoch=20"),
        *("train.batch_size=4", "train.patch_size=18", "train.lr=0.01", "train.progressive=[]"),
        *("train.precision=float32", "train.compile=false", "train.ema_decay=0.5"),
    )
    return TrainRequest(
        root=root,
        train_ids=ids[:4],
        val_ids=ids[4:],
        params=load_params("demo", overrides=(*recipe, *overrides)),
        settings=settings.model_copy(update={"ray_address": "in-process"}),
        digest="d1",
        run_name="toy",
        model_dir=root / "model",
    )


@pytest.fixture
def trained(tmp_path: Path, settings: Settings) -> Path:
    """A model folder after 40 steps on six pairs whose low is half of the high."""
    rng, asked = np.random.default_rng(0), request(tmp_path, settings)
    for side in ("low", "high"):
        (tmp_path / "our485" / side).mkdir(parents=True)
    for pair_id in (*asked.train_ids, *asked.val_ids):
        coarse = Image.fromarray(rng.integers(40, 256, (5, 6, 3), dtype=np.uint8))
        high = np.asarray(coarse.resize((48, 40), Image.Resampling.BICUBIC))
        for side, pixels in (("low", high // 2), ("high", high)):
            Image.fromarray(pixels).save(tmp_path / pair_id.replace("/", f"/{side}/"))
    assert asked.params.train.loss == {"l1": 1.0}, "the objective of its entry"
    result = train_model(asked, Listener())
    assert result.model_name == "toy-l"
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss
    return Path(result.model_dir)


def test_from_training_to_a_registered_version(
    trained: Path, settings: Settings, tmp_path: Path
) -> None:
    model = load_model(trained)
    assert isinstance(model, Toy) and model.first.out_channels == 16
    assert model.norm.running_mean is not None
    assert not torch.equal(model.norm.running_mean, torch.zeros(16)), "statistics are kept"
    pixels = np.random.default_rng(1).integers(0, 128, (201, 303, 3), dtype=np.uint8)
    enhancer = Enhancer.load(trained, precision="float32", compile=False)
    whole = enhancer(pixels)
    enhancer.max_pixels = 100 * 100
    assert enhancer.tile_shape(201, 303) is not None
    assert np.abs(enhancer(pixels).astype(int) - whole).max() <= 1  # float32 may round otherwise
    assert enhancer(pixels[:1, :1]).shape == (1, 1, 3)

    assert export.export_pt2(model, tmp_path / "toy.pt2") < 1e-5
    with pytest.raises(UsageError, match="Toy is not exported to onnx; it is to pt2"):
        export.export_onnx(model, tmp_path / "toy.onnx")

    with track(settings, purpose="train", name="toy") as run:
        pass
    version = versions.register(trained, name="toy", run_id=run.run_id, settings=settings)
    versions.sign_decision(version, gate_decision("keep"), settings)
    again = load_model(versions.resolve("models:/toy/1", settings).folder)
    image = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        assert torch.equal(again(image), model(image))


def test_a_network_without_blocks_is_compiled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def run(block: nn.Module, maps: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> Tensor:
        compiled.append(block)
        return fast.run_block(block, maps, values)

    monkeypatch.setattr(fast, "_compiled", lambda _: run)
    enhancer = Enhancer(build("toy"), precision="float32", device="cpu", compile=False)
    pixels = np.zeros((130, 150, 3), np.uint8)  # more than goes through in batches
    first = enhancer(pixels)
    enhancer.network._can_compile = True
    enhancer.fix_shapes([(130, 150)])
    assert np.array_equal(enhancer(pixels), first)
    assert [type(block) for block in compiled] == [Toy]


def test_its_published_checkpoints_are_told_from_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("toy", width=5).eval()
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    image = torch.rand(1, 3, 9, 11)
    assert torch.equal(read_checkpoint(tmp_path / "net.pth")(image), model(image))
    missing = {name: value for name, value in state.items() if "running_var" not in name}
    torch.save(missing, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth: missing 1: norm\.running_var"):
        read_checkpoint(tmp_path / "net.pth")
    torch.save(state | {"net.first.bias": torch.zeros(4)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth: net\.first\.bias does not fit"):
        read_checkpoint(tmp_path / "net.pth")


def test_sizes_and_names_are_checked_by_its_entry(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.width: .* less than or equal to 64 \(got 65\)"):
        load_params("demo", overrides=("model.name=toy", "model.width=65"))
    with pytest.raises(UsageError, match=r"unknown parameter model\.n_feat; sizes of toy: width"):
        load_params("demo", overrides=("model.name=toy", "model.n_feat=8"))
    with pytest.raises(ValueError, match="named toy"):
        register(ENTRY)
    folder = save_model(build("toy"), tmp_path / "model")
    text = (folder / "architecture.json").read_text()
    (folder / "architecture.json").write_text(text.replace('"toy"', '"tow"'))
    with pytest.raises(WeightsError, match=r"architecture\.network: .*'tow', did you mean toy\?"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"domain": "packed-raw", "channels": 4}, "takes packed-raw with 4 channels"),
        ({"output_scale": 2}, "enlarges by 2"),
        ({"sampled": True}, "samples its output"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change: dict[str, Any], reason: str) -> None:
    model = build("toy")
    unregister("toy")
    register(replace(ENTRY, **change))
    with pytest.raises(UsageError, match=f"Toy {reason}"):
        Enhancer(model, compile=False)


def test_normalisation_over_the_batch_needs_the_batch_in_one_piece(
    tmp_path: Path, settings: Settings
) -> None:
    with pytest.raises(UsageError, match=r"train\.accumulate 2: Toy normalises"):
        train_model(request(tmp_path, settings, "train.accumulate=2"), Listener())


@pytest.mark.parametrize(
    "change",
    [{"size_multiple": 4}, {"halo": 1}, {"variants": {}}],
    ids=["multiple", "halo", "none"],
)
def test_an_entry_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^toy: "):
        replace(ENTRY, **change)
