import copy
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from mirnet.errors import UsageError, WeightsError
from mirnet.images import Image
from mirnet.inference import Enhancer, crop_statistics, network
from mirnet.models import Network, build, save_model
from mirnet.models.layers.pooling import FULL_IMAGE, GivenPooling, GlobalPooling
from mirnet.models.margin import Margined
from mirnet.params import Precision
from tests.small_models import smallest


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> Network:
    torch.manual_seed(0)
    return build("mirnet-xs", n_feat=8).eval()


@pytest.fixture(scope="module")
def enhancer(model: Network) -> Enhancer:
    return Enhancer(model, precision="float32", compile=False)


def dark(height: int, width: int, dtype: type = np.uint8) -> npt.NDArray[np.uint8 | np.uint16]:
    """A ramp with a bright corner and noise, so that every region has other statistics."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    light = 0.1 + 0.2 * rows / max(height, 1) + 0.5 * ((rows < 80) & (columns < 80))
    light = light[..., None] + rng.normal(0, 0.02, (height, width, 3))
    return (light.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (2, 3), (4, 4), (33, 46)])
def test_any_size_keeps_shape_and_type(
    enhancer: Enhancer, size: tuple[int, int], dtype: type
) -> None:
    low = dark(*size, dtype)
    out = enhancer(low)
    assert out.shape == low.shape
    assert out.dtype == dtype


@pytest.mark.parametrize("size", [(24, 32), (25, 35), (5, 3)])
def test_same_as_the_network_with_its_margin(
    enhancer: Enhancer, model: Network, size: tuple[int, int]
) -> None:
    low = dark(*size)
    batch = torch.from_numpy(low.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        wanted = (Margined(model)(batch).clamp(0, 1)[0].permute(1, 2, 0) * 255).numpy()
    assert np.abs(enhancer(low) - wanted).max() <= 0.51
    assert not np.array_equal(enhancer(low), low)


def test_strength_mixes_input_and_output(enhancer: Enhancer) -> None:
    low = dark(16, 16)
    full = enhancer(low).astype(float)
    assert np.array_equal(enhancer(low, strength=0), low)
    half = enhancer(low, strength=0.5)
    assert np.abs(half - (low + full) / 2).max() <= 1


@pytest.mark.parametrize("strength", [-0.1, 1.6, float("nan")])
def test_strength_out_of_range(enhancer: Enhancer, strength: float) -> None:
    with pytest.raises(UsageError, match=r"strength .*: Input should be"):
        enhancer(dark(8, 8), strength=strength)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_other_arrays_are_refused(enhancer: Enhancer, pixels: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match="expected \\(height, width, 3\\)"):
        enhancer(pixels)


def test_image_keeps_what_is_not_colour(enhancer: Enhancer) -> None:
    low = dark(8, 12)
    low[..., 1:] = low[..., :1]
    alpha = np.arange(96, dtype=np.uint8).reshape(8, 12)
    image = Image(low, format="WEBP", alpha=alpha, grey=True, icc=b"profile", exif=b"exif")
    out = enhancer.enhance_image(image)
    assert (out.format, out.icc, out.exif, out.grey) == ("WEBP", b"profile", b"exif", True)
    assert out.alpha is alpha
    assert np.array_equal(out.pixels[..., 0], out.pixels[..., 2])
    assert not np.array_equal(out.pixels, low)


def test_the_model_stays_as_it_is(model: Network) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Enhancer(model, precision="bf16", compile=False)(dark(8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_bf16_stays_close_to_float32(model: Network, enhancer: Enhancer) -> None:
    low = dark(64, 64)
    fast = Enhancer(model, precision="bf16", compile=False)(low).astype(float)
    assert psnr(fast, enhancer(low).astype(float)) > 45


@pytest.fixture(scope="module")
def attentive() -> Network:
    """A network whose output depends on its global averages, as trained ones do."""
    torch.manual_seed(0)
    net = build("mirnet-xs", n_feat=8).eval()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if ("channel" in name or "fusion" in name) and weight.dim() == 4:
                weight.mul_(20)
        net.conv_out.weight.mul_(4)
    return net


def psnr(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


def test_tiles_look_like_the_whole(attentive: Network) -> None:
    low = dark(600, 320)
    low[:200] //= 8
    whole = Enhancer(attentive, precision="float32", compile=False)(low).astype(float)
    enhancer = Enhancer(attentive, precision="float32", compile=False)
    enhancer.max_pixels = 380 * 352
    assert enhancer.tile_shape(600, 320) == (380, 352)
    tiled = enhancer(low).astype(float)
    assert psnr(tiled, whole) > 45
    steps = np.abs(np.diff(tiled, axis=0)).mean(axis=(1, 2))
    border = 380 - enhancer.halo - enhancer.margin - 1
    usual = np.delete(steps[220:420], border - 220)
    assert steps[border] <= usual.mean() + 3 * usual.std()
    # statistics of their own would make the tiles differ
    enhancer._statistics = lambda _: None  # type: ignore[method-assign,assignment,return-value]
    assert psnr(enhancer(low).astype(float), whole) < psnr(tiled, whole) - 10


def test_crops_correct_the_statistics_of_a_much_smaller_copy(
    attentive: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As well in many batches as in one, however little fits at once."""
    low = dark(960, 960)
    low[:300] //= 8
    low[600:, 400:] //= 3
    enhancer = Enhancer(attentive, precision="float32", compile=False)
    whole = enhancer(low).astype(float)
    enhancer.max_pixels = 320 * 320
    monkeypatch.setattr(crop_statistics, "CROP", 128)

    def score() -> float:
        return psnr(enhancer(low).astype(float), whole)

    monkeypatch.setattr(crop_statistics, "crops_at_once", lambda *_: 100)
    at_once = score()
    batches: list[int] = []
    statistics = enhancer.network.statistics

    def watched(image: Tensor, source: GlobalPooling) -> list[Tensor]:
        batches.append(len(image))
        return statistics(image, source)

    monkeypatch.setattr(enhancer.network, "statistics", watched)
    monkeypatch.setattr(crop_statistics, "crops_at_once", lambda *_: 8)
    in_parts = score()
    # the copy; 25 crops (24 at least), each at two scales
    assert batches == [1, 7, 7, 6, 6, 6, 6, 6, 6]
    assert min(in_parts, at_once) > 60
    assert in_parts == pytest.approx(at_once, abs=6)


def test_an_output_that_is_not_finite_is_no_picture(model: Network) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.conv_out.weight.fill_(3e38)
    with pytest.raises(WeightsError, match="not finite"):
        Enhancer(broken, precision="float32", compile=False)(dark(16, 16))


def test_long_and_thin_images_go_in_tiles(model: Network) -> None:
    enhancer = Enhancer(model, precision="float32", compile=False)
    low = dark(8, 13000)
    whole = enhancer(low).astype(float)
    enhancer.max_pixels = 320 * 320
    tiled = enhancer(low).astype(float)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).mean() < 2


def test_memory_limit_sets_the_tile_and_has_a_least(model: Network) -> None:
    small = Enhancer(model, precision="float32", memory_limit_gib=0.25, compile=False)
    large = Enhancer(model, precision="float32", memory_limit_gib=0.5, compile=False)
    assert large.max_pixels == pytest.approx(2 * small.max_pixels, abs=1)
    assert small.tile_shape(1000, 100) is None
    shape = small.tile_shape(4000, 3000)
    assert shape is not None
    assert shape[0] * shape[1] <= small.max_pixels
    with pytest.raises(UsageError, match=r"memory limit of 0\.01 GiB: needs 0\.\d+ at least"):
        Enhancer(model, precision="float32", memory_limit_gib=0.01, compile=False)


def test_loads_folders_and_names_what_is_missing(model: Network, tmp_path: Path) -> None:
    folder = save_model(model, tmp_path / "model")
    low = dark(8, 8)
    loaded = Enhancer.load(folder, precision="float32", compile=False)
    assert np.array_equal(loaded(low), Enhancer(model, precision="float32", compile=False)(low))
    with pytest.raises(WeightsError, match="absent: no such model folder or checkpoint file"):
        Enhancer.load(tmp_path / "absent")


def test_without_a_compiler_one_warning_and_eager(
    model: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "find_compiler", lambda: None)
    with caplog.at_level(logging.WARNING):
        enhancer = Enhancer(model, precision="float32", device="cpu")
    outputs = [enhancer(dark(8, 8)) for _ in range(3)]
    assert np.array_equal(outputs[0], outputs[2])
    assert [r.message for r in caplog.records if "no C++ compiler" in r.message] == [
        r.message for r in caplog.records
    ]
    assert len(caplog.records) == 1


def test_only_sizes_that_come_again_are_compiled(
    model: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int, ...]] = []

    def recording(function: object, *, dynamic: bool) -> object:
        assert dynamic is False

        def run(
            block: torch.nn.Module, maps: tuple[torch.Tensor, ...], values: tuple[torch.Tensor, ...]
        ) -> torch.Tensor:
            compiled.append(tuple(maps[0].shape[2:]))
            return network.run_block(block, maps, values)

        return run

    monkeypatch.setattr(network, "can_compile", lambda _: True)
    monkeypatch.setattr(torch, "compile", recording)
    enhancer = Enhancer(model, precision="float32")
    for side in (8, 12, 8, 12, 16, 16, 20, 20, 24, 24, 24, 8):
        enhancer(dark(side, side))
    given = [side + 2 * enhancer.margin for side in (8, 12, 16, 20)]
    assert sorted(set(compiled)) == [(side, side) for side in given]
    assert compiled.count((given[0], given[0])) == 2


def test_a_failing_compilation_falls_back(
    model: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(function: object, *, dynamic: bool) -> object:
        def run(*_: object) -> torch.Tensor:
            raise torch._dynamo.exc.InternalTorchDynamoError("compiler exploded\nmore")

        return run

    monkeypatch.setattr(network, "can_compile", lambda _: True)
    monkeypatch.setattr(torch, "compile", failing)
    enhancer = Enhancer(model, precision="float32")
    with caplog.at_level(logging.WARNING):
        outputs = [enhancer(dark(8, 8)) for _ in range(4)]
    assert np.array_equal(outputs[0], outputs[3])
    assert [r.getMessage() for r in caplog.records] == [
        "compilation failed, going on without it: compiler exploded"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["own statistics", "given statistics"])
def test_compiled_is_the_same_function(model: Network, tmp_path: Path, given: bool) -> None:
    """With given ones of one stream: all that differs is where its blocks take them from."""
    model = smallest().eval() if given else model
    cpu = torch.device("cpu")
    fast = network.FastNetwork(model, device=cpu, dtype=torch.float32, cache_dir=tmp_path)
    low = torch.rand(1, 3, 92, 76) / 4  # at its coarsest 23x19: no multiple of a vector
    values = [value * 1.1 for value in fast.statistics(low, FULL_IMAGE)] if given else None
    exact = copy.deepcopy(model).double()
    source = GivenPooling([value.double() for value in values]) if values else FULL_IMAGE
    with torch.no_grad():
        expected = exact(low.double(), source).float()
    for _ in range(3):
        assert (fast(low, values) - expected).abs().max() < 1e-5
    assert fast._compiled_shapes == {(1, 3, 92, 76, int(given))}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_in_a_full_batch_neither_place_nor_mates_matter(precision: Precision) -> None:
    torch.manual_seed(3)
    enhancer = Enhancer(build("mirnet-xs", n_feat=8), precision=precision, compile=False)
    random = np.random.default_rng(0)
    images = [
        Image(random.integers(0, 90, (30, 45, 3), dtype=np.uint8), grey=n == 2) for n in range(9)
    ]
    assert enhancer.batch_size(30, 45) == 1, "not settled"
    enhancer.fix_shapes([(30, 45)])
    size = enhancer.batch_size(30, 45)
    assert size > 1
    assert enhancer.batch_size(45, 30) == 1
    assert enhancer.batch_size(4000, 6000) == 1
    alone = [enhancer.enhance_images([image])[0].pixels for image in images]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [8, 2], [5, 6, 2]):
        together = enhancer.enhance_images([images[n] for n in order[:size]], 1.0)
        for n, done in zip(order, together, strict=True):
            assert np.array_equal(done.pixels, alone[n])
    single = enhancer.enhance_image(images[0]).pixels.astype(int)
    assert np.abs(single - alone[0].astype(int)).max() <= 8, "as one by one but for rounding"
    half = enhancer.enhance_images(images[:2], 0.5)[0].pixels.astype(int)
    middle = (images[0].pixels.astype(int) + alone[0]) / 2
    assert np.abs(half - middle).max() <= 1


@pytest.mark.slow
def test_a_library_that_a_kill_cut_short_is_compiled_again(tmp_path: Path) -> None:
    """Of the network with the fewest of them: each takes seconds."""
    child = """
import sys, torch
from pathlib import Path
from mirnet.inference.network import FastNetwork
from mirnet.models import build
torch.manual_seed(0)
torch.set_num_threads(1)
model = build("sci").eval()
cpu = torch.device("cpu")
fast = FastNetwork(model, device=cpu, dtype=torch.float32, cache_dir=Path(sys.argv[1]))
for _ in range(3):
    fast(torch.full((1, 3, 32, 32), 0.1))
print("compiled" if fast._can_compile else "gave up")
"""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", child, str(tmp_path)],
            env={k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "compiled\n", done.stderr
        libraries = list(tmp_path.rglob("*.so"))
        assert libraries and all(path.stat().st_size > 5000 for path in libraries)
        for path in libraries:
            os.truncate(path, 5000)
            os.utime(path, (0, 0))


@pytest.mark.parametrize(("chosen", "taken"), [(None, "ours"), ("theirs", "theirs")])
def test_compiled_code_goes_where_settings_say(
    chosen: str | None, taken: str, tmp_path: Path
) -> None:
    """Torch sets the variable to a folder of its own as soon as it is imported."""
    child = """
import os, sys, torch._dynamo
from pathlib import Path
from mirnet.hardware import use_kernel_cache
use_kernel_cache(Path(sys.argv[1]))
print(os.environ["TORCHINDUCTOR_CACHE_DIR"])
"""
    there = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}
    if chosen:
        there["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / chosen)
    command = [sys.executable, "-c", child, str(tmp_path / "ours")]
    done = subprocess.run(command, env=there, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / taken)
