"""What ``import mirnet`` promises: names, documentation, types, and that it loads nothing heavy."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from skimage.metrics import peak_signal_noise_ratio

import mirnet
from mirnet.errors import ImageError, MirnetError, UsageError
from mirnet.images import Image
from mirnet.models import Network, build, save_model
from mirnet.params import ModelParams

FUNCTIONS = ("list_architectures", "load_model", "open_enhancer", "score")
CLASSES = ("Enhancer", "Scores")


def picture(height: int = 24, width: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


def callables() -> dict[str, Callable[..., object]]:
    """Public functions, and the public methods of public classes."""
    functions = {name: getattr(mirnet, name) for name in FUNCTIONS}
    methods = {
        f"{name}.{method}": getattr(getattr(mirnet, name), method)
        for name in CLASSES
        for method in vars(getattr(mirnet, name))
        if method == "__call__" or not method.startswith("_")
    }
    return functions | {name: method for name, method in methods.items() if callable(method)}


def test_exports() -> None:
    assert sorted(mirnet.__all__) == sorted([*FUNCTIONS, *CLASSES, "__version__"])
    assert set(mirnet.__all__) <= set(dir(mirnet))
    assert inspect.isclass(mirnet.Enhancer) and inspect.isclass(mirnet.Scores)
    assert all(inspect.isfunction(getattr(mirnet, name)) for name in FUNCTIONS)
    assert mirnet.__version__ == version("mirnet-pipeline")
    with pytest.raises(AttributeError, match="no attribute 'enhance_all'"):
        mirnet.enhance_all  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="enhance_all"):
        from mirnet import enhance_all  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize("name", [*CLASSES, *callables()])
def test_documentation(name: str) -> None:
    thing = callables().get(name) or getattr(mirnet, name)
    assert thing.__doc__, name
    assert not thing.__doc__.startswith(f"{name}("), "what a dataclass writes by itself"


@pytest.mark.parametrize("name", callables())
def test_types_resolve(name: str) -> None:
    """With nothing but public names and what the module itself imports."""
    public = {name: getattr(mirnet, name) for name in CLASSES}
    function = callables()[name]
    hints = typing.get_type_hints(function, localns=public)
    parameters = inspect.signature(function).parameters.keys() - {"self"}
    assert hints.keys() == parameters | {"return"}


@pytest.mark.parametrize("name", callables())
def test_signatures_have_public_types_only(name: str) -> None:
    public = {getattr(mirnet, name) for name in CLASSES} | {Image, Network}
    hints = typing.get_type_hints(callables()[name], localns={c.__name__: c for c in public})
    assert {part for hint in hints.values() for part in parts_of(hint) if is_ours(part)} <= public


def parts_of(hint: object) -> Iterator[object]:
    """A type and those it is made of."""
    yield hint
    for part in typing.get_args(hint):
        yield from parts_of(part)


def is_ours(part: object) -> bool:
    return inspect.isclass(part) and part.__module__.partition(".")[0] == "mirnet"


def test_import_is_light() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import mirnet\n"
        "dir(mirnet)\n"
        "loaded = {m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names\n"
        "assert loaded == {'mirnet'}, loaded\n"
        "assert 'importlib.metadata' not in sys.modules\n"
        "assert mirnet.__version__ and mirnet.list_architectures()\n"
        "assert 'torch' not in sys.modules\n"
        "from mirnet import Enhancer, load_model, open_enhancer\n"
        "assert 'torch' in sys.modules and 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_from_a_model_folder_to_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = build("mirnet-xs", n_feat=8)
    save_model(network, Path("model"))
    low = picture()
    by_text = mirnet.open_enhancer("model", compile=False)(low)
    assert np.array_equal(mirnet.open_enhancer(Path("model"), compile=False)(low), by_text)
    loaded = mirnet.load_model("model")
    assert np.array_equal(mirnet.Enhancer(loaded, compile=False)(low), by_text)
    assert mirnet.score(by_text, by_text).psnr == 100
    for precision in ("float32", "bf16"):
        chosen = [f"enhance.precision={precision}"]
        asked = mirnet.open_enhancer("model", params="demo", overrides=chosen, compile=False)
        plain = mirnet.Enhancer(loaded, precision=precision, compile=False)
        assert np.array_equal(asked(low), plain(low))
    with pytest.raises(UsageError, match=r"enhance\.precison"):
        mirnet.open_enhancer("model", overrides=["enhance.precison=bf16"])


def test_architectures_are_what_model_name_takes() -> None:
    names = mirnet.list_architectures()
    assert {"mirnet", "mirnet-s", "mirnet-xs", "mirnet-v2"} <= set(names)
    assert all(ModelParams.model_validate({"name": name}).name == name for name in names)


def test_scores_by_hand() -> None:
    """Every value 10 levels off, 100 in place of 90: brightness is the whole difference."""
    reference, output = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 90, np.uint8)
    scores = mirnet.score(output, reference)
    assert scores.psnr == pytest.approx(10 * np.log10(255**2 / 10**2))
    # without structure SSIM is its luminance term
    c1 = (0.01 * 255) ** 2
    assert scores.ssim == pytest.approx((2 * 90 * 100 + c1) / (90**2 + 100**2 + c1))
    assert scores.gt_mean_psnr > 90 and scores.gt_mean_ssim == pytest.approx(1)
    assert np.isnan(scores.ms_ssim), "16 pixels are too few for five scales"
    assert 3 < scores.ciede2000 < 5


def test_scores_of_files_are_those_of_their_pixels(tmp_path: Path) -> None:
    first, second = picture(180, 176, seed=1), picture(180, 176, seed=2)
    for name, pixels in (("a.png", first), ("b.png", second)):
        PIL.Image.fromarray(pixels).save(tmp_path / name)
    scores = mirnet.score(tmp_path / "a.png", str(tmp_path / "b.png"))
    assert scores == mirnet.score(first, second)
    assert scores.psnr == pytest.approx(peak_signal_noise_ratio(second, first, data_range=255))
    assert 0 <= scores.ms_ssim <= 1


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (picture(24, 21), UsageError, r"output is \(24, 21\), reference is \(24, 20\)"),
        (picture().astype(np.float32) / 255, UsageError, "uint8, got .* float32"),
        (picture()[..., 0], UsageError, r"got \(24, 20\) uint8"),
        ("absent.png", ImageError, "absent.png: No such file"),
    ],
)
def test_what_cannot_be_scored(output: object, error: type[MirnetError], message: str) -> None:
    with pytest.raises(error, match=message):
        mirnet.score(output, picture())  # type: ignore[arg-type]


def test_a_picture_without_room_for_the_window() -> None:
    with pytest.raises(UsageError, match="SSIM needs 11 pixels per side"):
        mirnet.score(picture(10, 40), picture(10, 40))
