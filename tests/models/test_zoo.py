"""Networks beside MIRNet: reference vectors from outside of the repository, and what all share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirnet.errors import WeightsError
from mirnet.inference import Enhancer
from mirnet.models import Network, build, export, load_model, read_checkpoint, save_model
from mirnet.models.layers.pooling import FULL_IMAGE

ZOO = Path(__file__).parents[2].parent / "shared" / "zoo"

# checkpoint, vectors, names of input and output; activations behind norms amplify dark inputs
PUBLISHED = [
    ("iat.pth", "iat_io.npz", "x", "y", 1e-5),
    ("iat.pth", "iat_io.npz", "x_odd", "y_odd", 1e-5),
    ("iat.pth", "iat_io.npz", "x_dark", "y_dark", 1e-5),
    ("weights/iat_lol_v1.pth", "iat_published_lol_v1_io.npz", "x", "y", 1e-5),
    ("mobileie_train.pth", "mobileie_train_io.npz", "x", "y", 1e-5),
    ("mobileie_slim.pth", "mobileie_slim_io.npz", "x", "y", 1e-5),
    ("restormer.pth", "restormer_io.npz", "x", "y", 1e-5),
    ("restormer.pth", "restormer_io.npz", "x_dark", "y_dark", 1e-4),
    ("restormer_biasfree.pth", "restormer_biasfree_io.npz", "x", "y", 1e-5),
    ("restormer_biasfree.pth", "restormer_biasfree_io.npz", "x_dark", "y_dark", 1e-4),
    ("retinexformer.pth", "retinexformer_io.npz", "x", "y", 1e-5),
    ("retinexformer.pth", "retinexformer_io.npz", "x_dark", "y_dark", 1e-5),
    ("retinexformer_2stage.pth", "retinexformer_2stage_io.npz", "x", "y", 1e-5),
]
# parameters as the papers or their code count them
PARAMETERS = {
    "iat": 91_154,
    "mobileie": 47_239,
    "restormer": 26_126_644,
    "retinexformer": 1_605_701,
}
SMALL: dict[str, dict[str, Any]] = {
    "iat": {"width": 4},
    "mobileie": {"channels": 4, "expansion": 1},
    "restormer-s": {"dim": 8, "num_blocks": (1, 1, 1, 1)},
    "retinexformer-s": {"n_feat": 8},
}


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> Network:
    """A small form with random weights, at none of their neutral start values."""
    torch.manual_seed(0)
    network = build(request.param, **SMALL[request.param])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.skipif(not ZOO.is_dir(), reason="no reference vectors beside the project")
@pytest.mark.parametrize(("file", "vectors", "x", "y", "atol"), PUBLISHED)
def test_published_output(file: str, vectors: str, x: str, y: str, atol: float) -> None:
    model, arrays = read_checkpoint(ZOO / file), np.load(ZOO / vectors)
    image = torch.from_numpy(arrays[x])
    with torch.inference_mode():
        np.testing.assert_allclose(model(image).numpy(), arrays[y], atol=atol, rtol=0)
        folded = model.folded()(image).numpy()
    np.testing.assert_allclose(folded, arrays[y], atol=atol, rtol=0)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build(name).parameters()) == count


def test_every_weight_learns(model: Network) -> None:
    model.train()(torch.rand(2, 3, 24, 32)).square().mean().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []


def test_kept_and_folded(model: Network, tmp_path: Path) -> None:
    with torch.inference_mode():
        model.train()(torch.rand(2, 3, 24, 32))  # statistics that are not those of the start
        image = torch.rand(1, 3, 24, 40)
        out = model.eval()(image)
        again = load_model(save_model(model, tmp_path / "model"))
        assert torch.equal(again(image), out)
        assert (model.folded()(image) - out).abs().max() < 1e-5
    published = tmp_path / "net.pth"
    torch.save(model.state_dict(), published)
    assert read_checkpoint(published).config == model.config


@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 1, 1)], ids=str)
def test_tensors_of_other_shapes_are_refused(
    model: Network, shape: tuple[int, ...], tmp_path: Path
) -> None:
    published = tmp_path / "net.pth"
    torch.save({name: torch.zeros(shape) for name in model.state_dict()}, published)
    with pytest.raises(WeightsError, match=r"net\.pth: "):
        read_checkpoint(published)


def test_images_of_any_size_in_bounded_memory(
    model: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(1).integers(0, 128, (6, 8, 3), dtype=np.uint8)
    pixels = pixels.repeat(50, 0).repeat(50, 1)[:-7, :-3]
    enhancer = Enhancer(model, precision="float32", device="cpu", compile=False)
    whole = enhancer(pixels)
    values = enhancer.network.statistics(
        enhancer._read(pixels, enhancer._whole(pixels)), FULL_IMAGE
    )
    enhancer.max_pixels = 200 * 200
    assert enhancer.tile_shape(*pixels.shape[:2]) is not None
    # statistics of the image are estimated, and random weights amplify the difference
    assert np.abs(enhancer(pixels).astype(int) - whole).mean() < 3
    monkeypatch.setattr(enhancer, "_statistics", lambda _: values)
    assert np.abs(enhancer(pixels).astype(int) - whole).mean() < 0.1
    assert enhancer(pixels[:1, :1]).shape == (1, 1, 3)


def test_bf16_is_close(model: Network) -> None:
    pixels = np.random.default_rng(1).integers(0, 128, (48, 64, 3), dtype=np.uint8)
    precise, fast = (
        Enhancer(model, precision=precision, device="cpu", compile=False)(pixels).astype(int)
        for precision in ("float32", "bf16")
    )
    assert np.abs(precise - fast).mean() < 1


@pytest.mark.slow
def test_exported(model: Network, tmp_path: Path) -> None:
    assert export.export_pt2(model, tmp_path / "net.pt2") < 1e-4
    assert export.export_onnx(model, tmp_path / "net.onnx") < 1e-4
