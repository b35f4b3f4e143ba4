import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner

from mirnet.cli.weights import app
from mirnet.errors import ExtraMissing, UsageError
from mirnet.images import to_png
from mirnet.models import Network, build, export, load_model
from mirnet.models.margin import Margined
from tests.small_models import make_model, smallest

NETWORKS = ["mirnet-xs", "mirnet-v2"]


def small(name: str) -> Network:
    torch.manual_seed(0)
    return build(name, n_feat=16, num_rrg=1, num_msrb=1).eval()


def dark(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 3, 32, 32), dtype=np.float32) / np.float32(4)


LOWS = [dark(seed) for seed in (0, 1)]


@dataclass(frozen=True)
class Exports:
    """All forms of one network in a folder, with what their exports said."""

    model: Network
    folder: Path
    pt2_deviation: float
    onnx_deviation: float
    int8_psnr: float


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exports]:
    """Made once per network: an export takes many seconds. int8 is made from the ONNX file."""
    pytest.importorskip("onnxruntime")

    @cache
    def made(name: str) -> Exports:
        model, folder, deviations = small(name), tmp_path_factory.mktemp(name), []
        export_onnx = export.export_onnx

        def kept(model: Network, path: Path) -> float:
            deviations.append(export_onnx(model, path))
            shutil.copy(path, folder / "net.onnx")
            return deviations[-1]

        program = export.export_program(model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "export_program", lambda _: program)  # traced once for all forms
            patch.setattr(export, "export_onnx", kept)
            psnr = export.export_int8(model, folder / "int8.onnx", lows=LOWS)
            pt2_deviation = export.export_pt2(model, folder / "net.pt2")
        (deviation,) = deviations
        return Exports(model, folder, pt2_deviation, deviation, psnr)

    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_pt2_takes_any_batch_and_size(name: str, exports: Callable[[str], Exports]) -> None:
    made = exports(name)
    assert made.pt2_deviation < 1e-5
    loaded = torch.export.load(made.folder / "net.pt2").module()
    image = torch.rand(3, 3, 12, 44)
    with torch.no_grad():
        assert torch.allclose(loaded(image), Margined(made.model)(image), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_agrees_on_several_sizes(name: str, exports: Callable[[str], Exports]) -> None:
    assert exports(name).onnx_deviation < 1e-4


@pytest.mark.slow
def test_int8_is_smaller_and_close(exports: Callable[[str], Exports]) -> None:
    made = exports("mirnet-xs")
    assert made.int8_psnr > 30
    int8, plain = made.folder / "int8.onnx", made.folder / "net.onnx"
    out = export.onnx_runner(int8)(LOWS[0])
    assert not np.array_equal(out, export.onnx_runner(plain)(LOWS[0]))
    assert int8.stat().st_size < plain.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_leaves_global_averages_alone(name: str, exports: Callable[[str], Exports]) -> None:
    """In 8 bits they cost a trained network almost 5 dB: docs/benchmarks/export.md."""
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load(exports(name).folder / "int8.onnx").graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    quantised = [
        made_by.get(node.input[0]) == "DequantizeLinear" for node in nodes if node.op_type == "Conv"
    ]
    model, seen = small(name), []
    for conv in model.modules():
        if isinstance(conv, torch.nn.Conv2d):
            conv.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    model(torch.from_numpy(LOWS[0]))
    averages = seen.count(torch.Size((1, 1)))
    assert quantised.count(False) == averages
    assert averages and quantised.count(True)


def test_int8_needs_images() -> None:
    with pytest.raises(UsageError, match="--calibrate FOLDER"):
        export.export_int8(smallest(), Path("never"), lows=[])


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExtraMissing, match=r"^onnxscript: .*'mirnet-pipeline\[export\]'$"):
        export.export_onnx(smallest(), Path("never"))


def test_import_command(tmp_path: Path) -> None:
    model = build("mirnet-v2", n_feat=16, num_rrg=1, num_msrb=1)
    theirs = {"conv_in.weight": model.conv_in.weight.detach()}
    torch.save({"params": theirs}, tmp_path / "net.pth")
    result = CliRunner().invoke(app, ["import", str(tmp_path / "net.pth")])
    assert result.exit_code != 0
    assert " or MIRNet or MIRNet-v2 or " in str(result.exception)


@pytest.mark.slow
def test_export_command(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = make_model(tmp_path / "model", seed=0)
    lows = tmp_path / "lows"
    lows.mkdir()
    (lows / "1.png").write_bytes(to_png(np.full((33, 30, 3), 20, np.uint8)))
    target = tmp_path / "net.onnx"
    options = ["--model", str(folder), "--format", "int8", "--calibrate", str(lows)]
    result = CliRunner().invoke(app, ["export", str(target), *options])
    assert result.exit_code == 0, result.output
    assert "dB PSNR to float32" in result.output
    assert target.is_file()
    assert load_model(folder) is not None
