"""Networks beside MIRNet: reference vectors from outside of the repository, and what all share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mirnet.errors import UsageError, WeightsError
from mirnet.inference import Enhancer
from mirnet.models import Network, build, export, load_model, read_checkpoint, save_model
from mirnet.models.layers.pooling import FULL_IMAGE
from mirnet.models.llflow.encoder import equalised
from mirnet.models.llflow.network import LLFlow
from mirnet.objectives.total import Sample, combined
from tests.models.recipe import recipe_weights

ZOO = Path(__file__).parents[2].parent / "shared" / "zoo"

WITH_ZOO = pytest.mark.skipif(not ZOO.is_dir(), reason="no reference vectors beside the project")

# checkpoint or weights by rule, vectors, names of input and output, bound of the deviation;
# activations behind norms amplify dark inputs
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
    ("cidnet.pth", "cidnet_io.npz", "x", "y", 1e-5),
    ("cidnet.pth", "cidnet_io.npz", "x_dark", "y_dark", 1e-5),
    ("zerodce.pth", "zerodce_io.npz", "x", "y", 1e-5),
    ("zerodcepp.pth", "zerodcepp_io.npz", "x", "y_sf1", 2e-5),
    ("unet_w4.pth", "unet_w4_io.npz", "x", "y", 3e-5),
    ("unet_w4.pth", "unet_w4_io.npz", "x_odd", "y_odd", 3e-5),
    ("sid_rgb (TF layout)", "sid_rgb_io.npz", "x", "y", 4e-5),
    ("retinexnet_w16.pth", "retinexnet_w16_io.npz", "x", "y", 2e-5),
    ("retinexnet_w16.pth", "retinexnet_w16_io.npz", "x_odd", "y_odd", 2e-5),
    ("pairlie (torch layout)", "pairlie_io.npz", "x", "y", 1e-5),
    ("sci.pth", "sci_io.npz", "x", "y", 1e-5),
    ("mbllen_a.pth mbllen_b.pth", "mbllen_io.npz", "x", "y", 3e-5),
    ("llnet_small.pth", "llnet_small_io.npz", "image", "y_image", 1e-5),
    ("lyt.pth", "lyt_io.npz", "x", "y", 1e-5),
]
LARGE = [
    ("sid_rgb (TF layout)", "sid_rgb_io.npz", "x_odd", "y_odd", 4e-5),
    ("retinexnet (TF layout)", "retinexnet_io.npz", "x", "y", 4e-5),
    ("retinexnet (TF layout)", "retinexnet_io.npz", "x_odd", "y_odd", 5e-5),
    ("unet bilinear (torch layout)", "unet_bilinear_io.npz", "x", "y", 8e-5),
    ("unet bilinear (torch layout)", "unet_bilinear_io.npz", "x_odd", "y_odd", 9e-5),
]
# sizes that no tensor of a checkpoint depends on
CHOSEN: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("cidnet.pth", "cidnet_io.npz", "x", "y_sat13", {"saturation": 1.3}),
    ("pairlie (torch layout)", "pairlie_io.npz", "x", "y_lol", {"exponent": 0.14}),
    ("zerodcepp.pth", "zerodcepp_io.npz", "x", "y_sf4", {"scale": 4}),
    ("zerodcepp.pth", "zerodcepp_io.npz", "x12", "y_sf12", {"scale": 12}),
]
# parameters as the papers or their code count them, without those that no output depends on
PARAMETERS = {
    "cidnet": 1_975_569 - 70_960,
    "iat": 91_154,
    "llnet": 17_918_467,
    # the paper's small configuration: without layers that no output depends on
    "llflow-s": 5_429_849 - 2 * 9_248 - 867 - 99 - 442_752,
    "lyt": 44_923,
    "mbllen": 450_171,
    "mobileie": 47_239,
    "pairlie": 341_767,
    "restormer": 26_126_644,
    "retinexformer": 1_605_701,
    "retinexnet": 444_613,
    "sci": 258,
    "sid": 7_759_683,
    "unet": 31_037_763,
    "zerodce": 79_416,
    "zerodcepp": 10_561,
}
SMALL: dict[str, dict[str, Any]] = {
    "cidnet-s": {"width": 4},
    "iat": {"width": 4},
    "llflow-s": {"width": 4, "growth": 4, "blocks": 2, "steps": 1, "hidden": 4},
    "llnet-s": {"hidden": (16, 12, 8, 12, 16)},
    "lyt": {"width": 16},
    "mbllen-s": {"width": 4, "blocks": 2},
    "mobileie": {"channels": 4, "expansion": 1},
    "pairlie": {"width": 4},
    "resunet-s": {"width": 4},
    "restormer-s": {"dim": 8, "num_blocks": (1, 1, 1, 1)},
    "retinexformer-s": {"n_feat": 8},
    "retinexnet-s": {"width": 4},
    "sci": {},
    "sid-s": {"width": 2},
    "unet-s": {"width": 4, "residual": False, "bilinear": True},
    "zerodce": {"width": 4},
    "zerodcepp": {"width": 4, "scale": 4},
}


def perturbed(name: str) -> Network:
    """A small form with random weights, at none of their neutral start values."""
    torch.manual_seed(0)
    network = build(name, **SMALL[name])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> Network:
    return perturbed(request.param)


def published(file: str, folder: Path) -> Network:
    """The network of a checkpoint, or of weights by rule."""
    if (ZOO / file).exists():
        return read_checkpoint(ZOO / file)
    made, parts = folder / "net.pth", file.split()
    if (ZOO / parts[0]).exists():
        states = [torch.load(ZOO / part, weights_only=True) for part in parts]
        torch.save({name: value for state in states for name, value in state.items()}, made)
    else:
        torch.save(recipe_weights(ZOO / "recipe_checksums.json", file), made)
    return read_checkpoint(made)


@WITH_ZOO
@pytest.mark.parametrize(
    ("file", "vectors", "x", "y", "atol"),
    [*PUBLISHED, *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGE)],
)
def test_published_output(
    file: str, vectors: str, x: str, y: str, atol: float, tmp_path: Path
) -> None:
    model, arrays = published(file, tmp_path), np.load(ZOO / vectors)
    image = torch.from_numpy(arrays[x]).reshape(-1, *arrays[x].shape[-3:])
    with torch.inference_mode():
        out = model(image).numpy().reshape(arrays[y].shape)
        np.testing.assert_allclose(out, arrays[y], atol=atol, rtol=0)
        folded = model.folded()
        if folded is not model:
            np.testing.assert_allclose(folded(image).numpy(), arrays[y], atol=atol, rtol=0)


@WITH_ZOO
@pytest.mark.parametrize(("file", "vectors", "x", "y", "chosen"), CHOSEN)
def test_published_output_with_chosen_sizes(
    file: str, vectors: str, x: str, y: str, chosen: dict[str, Any], tmp_path: Path
) -> None:
    read, arrays = published(file, tmp_path), np.load(ZOO / vectors)
    config = read.config.architecture.configure(read.config.sizes.model_dump() | chosen)
    model = config.build().eval()
    model.load_state_dict(read.state_dict())
    with torch.inference_mode():
        out = model(torch.from_numpy(arrays[x])).numpy()
    np.testing.assert_allclose(out, arrays[y], atol=1e-5, rtol=0)


@WITH_ZOO
def test_llflow_of_a_prepared_image() -> None:
    """Its vectors have an equalised image that is not that of their dark image."""
    model = read_checkpoint(ZOO / "llflow.pth")
    assert isinstance(model, LLFlow)
    arrays = {name: torch.from_numpy(a) for name, a in np.load(ZOO / "llflow_io.npz").items()}
    given, target = arrays["x"], arrays["gt"]
    with torch.inference_mode():
        conditions, mean = model.RRDB(given)
        z, logdet = model.flowUpsamplerNet(target, conditions)
        bits = model.likelihoods(given, target)
        found = {
            "color_map": mean,
            "y": model.enhanced(given),
            "z": z,
            "nll": bits["bits"],
            "nll_gt_mean": bits["bits_true_mean"],
        }
        assert (model.flowUpsamplerNet.reverse(z, conditions) - target).abs().max() < 1e-5
    for name, value in found.items():
        torch.testing.assert_close(value, arrays[name], atol=1e-5, rtol=0)
    torch.testing.assert_close(logdet, arrays["logdet"], atol=1e-4, rtol=0)


def test_llflow_equalises_each_channel() -> None:
    generator = np.random.default_rng(0)
    pixels = (255 * generator.random((2, 3, 20, 30)) ** 3).astype(np.uint8)
    pixels[1, 2] = 7  # of one level
    out = equalised(torch.from_numpy(pixels.astype(np.float32) / 255), FULL_IMAGE).numpy() * 255
    for image, channel in np.ndindex(2, 3):
        levels = pixels[image, channel]
        counts = np.bincount(levels.ravel(), minlength=256)
        darkest = counts[levels.min()]
        rest = max(levels.size - darkest, 1)
        table = np.round((counts.cumsum() - darkest) * (255 / rest)).clip(0)
        np.testing.assert_allclose(out[image, channel], table[levels], atol=1e-3)


@WITH_ZOO
def test_raw_checkpoints_of_sid_are_refused() -> None:
    with pytest.raises(WeightsError, match="SID on raw data with 4 channels: only sRGB"):
        read_checkpoint(ZOO / "sid_w4.pth")


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build(name).parameters()) == count


def test_every_weight_learns(model: Network) -> None:
    low, high = torch.rand(2, 2, 3, 32, 64)
    prediction = model.train().predict(low, high)
    torch.testing.assert_close(prediction.output, model(low))
    assert set(prediction.details) == model.architecture.details
    sample = Sample(output=prediction.output, low=low, high=high, details=prediction.details)
    combined(sample, model.architecture.objective)[0].mean().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert without == []


def test_kept_and_folded(model: Network, tmp_path: Path) -> None:
    with torch.inference_mode():
        model.train()(torch.rand(2, 3, 32, 64))  # statistics that are not those of the start
        image = torch.rand(1, 3, 32, 64)
        out = model.eval()(image)
        again = load_model(save_model(model, tmp_path / "model"))
        assert torch.equal(again(image), out)
        assert (model.folded()(image) - out).abs().max() < 1e-5
    if model.architecture.published is None:
        return
    own = tmp_path / "net.pth"
    torch.save(model.state_dict(), own)
    chosen = {"scale", "saturation", "exponent"}  # not in the tensors
    read = read_checkpoint(own).config
    assert read.family == model.config.family
    sizes, wanted = read.sizes.model_dump(), model.config.sizes.model_dump()
    assert {k: v for k, v in sizes.items() if k not in chosen} == {
        k: v for k, v in wanted.items() if k not in chosen
    }


@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 1, 1)], ids=str)
def test_tensors_of_other_shapes_are_refused(
    model: Network, shape: tuple[int, ...], tmp_path: Path
) -> None:
    made = tmp_path / "net.pth"
    torch.save({name: torch.zeros(shape) for name in model.state_dict()}, made)
    with pytest.raises(WeightsError, match=r"net\.pth: "):
        read_checkpoint(made)


def uneven(height: int = 93, width: int = 397) -> npt.NDArray[np.uint8]:
    """A dark gradient with noise and a bright corner, of no size that a network likes."""
    rows, columns = np.mgrid[0:height, 0:width]
    light = np.stack([40 * columns / width, 30 * rows / height, 20 + 20 * columns / width], axis=2)
    light += np.random.default_rng(0).normal(0, 3, light.shape)
    light[: height // 4, -width // 8 :] = 230
    return light.clip(0, 255).astype(np.uint8)


def deviation_of_bf16(model: Network) -> tuple[float, int]:
    """Mean and maximum in grey levels."""
    pixels = uneven(96, 128)
    precise, fast = (
        Enhancer(model, precision=precision, device="cpu", compile=False)(pixels).astype(int)
        for precision in ("float32", "bf16")
    )
    difference = np.abs(precise - fast)
    return float(difference.mean()), int(difference.max())


def test_bf16_is_close_or_refused(model: Network) -> None:
    if not model.architecture.bf16:
        with pytest.raises(UsageError, match=f"{model.architecture.title} is not accurate in bf16"):
            Enhancer(model, precision="bf16", device="cpu", compile=False)
        assert Enhancer(model, device="cpu", compile=False).network.dtype == torch.float32
        return
    assert deviation_of_bf16(model)[0] < 1


@WITH_ZOO
@pytest.mark.parametrize(
    ("file", "worst"), [("weights/iat_lol_v1.pth", 8), ("weights/sci_medium.pt", 4)]
)
def test_bf16_of_published_weights(file: str, worst: int) -> None:
    mean, largest = deviation_of_bf16(read_checkpoint(ZOO / file))
    assert mean < 1 and largest <= worst


@pytest.mark.slow
def test_bf16_of_trained_weights(model: Network) -> None:
    """Some steps of brightening: unlike random weights, they give an image."""
    if not model.architecture.bf16:
        pytest.skip("float32 only")
    low = torch.from_numpy(uneven(32, 48).astype(np.float32) / 255).permute(2, 0, 1)[None]
    high = (3 * low).clamp(0, 1).repeat(2, 1, 1, 1)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    for _ in range(25):
        loss = (model(high / 3) - high).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean, worst = deviation_of_bf16(model.eval())
    assert mean < 1 and worst < 16


@pytest.mark.slow
def test_exported(model: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = export.export_program(model)
    monkeypatch.setattr(export, "export_program", lambda _: program)  # traced once for all forms
    assert export.export_pt2(model, tmp_path / "net.pt2") < 1e-4
    if "int8" not in model.architecture.exports:
        assert export.export_onnx(model, tmp_path / "net.onnx") < 1e-4
        with pytest.raises(UsageError, match="is not exported to int8; it is to pt2, onnx"):
            export.export_int8(model, tmp_path / "int8.onnx", lows=[])
        return
    deviations, export_onnx = [], export.export_onnx

    def recorded(model: Network, path: Path) -> float:
        deviations.append(export_onnx(model, path))
        return deviations[-1]

    monkeypatch.setattr(export, "export_onnx", recorded)  # int8 is made from it
    low = np.ascontiguousarray(uneven(48, 48).transpose(2, 0, 1)[None] / 255, dtype=np.float32)
    # of MIRNet with random weights it is 30 or more, of a trained one 29
    assert export.export_int8(model, tmp_path / "int8.onnx", lows=[low]) > 25
    assert deviations[0] < 1e-4
