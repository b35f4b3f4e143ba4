import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner

from mirnet.cli.weights import app
from mirnet.errors import ExtraMissing, UsageError
from mirnet.images import to_png
from mirnet.models import Network, build, export, load_model, save_model
from mirnet.models.margin import Margined
from mirnet.models.mirnet.network import MIRNet

NETWORKS = [("mirnet-xs", 8), ("mirnet-v2", 16)]


def small(name: str, n_feat: int) -> Network:
    torch.manual_seed(0)
    return build(name, n_feat=n_feat, num_rrg=1, num_msrb=1).eval()


def dark(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 3, 32, 32), dtype=np.float32) / np.float32(4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
def test_pt2_takes_any_batch_and_size(name: str, n_feat: int, tmp_path: Path) -> None:
    model = small(name, n_feat)
    assert export.export_pt2(model, tmp_path / "net.pt2") < 1e-5
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    image = torch.rand(3, 3, 12, 44)
    with torch.no_grad():
        assert torch.allclose(loaded(image), Margined(model)(image), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
def test_onnx_agrees_on_several_sizes(name: str, n_feat: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert export.export_onnx(small(name, n_feat), tmp_path / "net.onnx") < 1e-4


@pytest.mark.slow
def test_int8_is_smaller_and_close(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = small("mirnet-xs", 16)
    lows = [dark(seed) for seed in (0, 1)]
    export.export_onnx(model, tmp_path / "float.onnx")
    loss = export.export_int8(model, tmp_path / "int8.onnx", lows=lows)
    assert loss > 30
    out = export.onnx_runner(tmp_path / "int8.onnx")(lows[0])
    assert not np.array_equal(out, export.onnx_runner(tmp_path / "float.onnx")(lows[0]))
    assert (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "float.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
def test_int8_leaves_global_averages_alone(name: str, n_feat: int, tmp_path: Path) -> None:
    """In 8 bits they cost a trained network almost 5 dB: docs/benchmarks/export.md."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    lows = [dark(0)]
    export.export_int8(small(name, n_feat), tmp_path / "int8.onnx", lows=lows)
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    made_by = {output: node.op_type for node in nodes for output in node.output}
    quantised = [
        made_by.get(node.input[0]) == "DequantizeLinear" for node in nodes if node.op_type == "Conv"
    ]
    model, seen = small(name, n_feat), []
    for conv in model.modules():
        if isinstance(conv, torch.nn.Conv2d):
            conv.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    model(torch.from_numpy(lows[0]))
    averages = seen.count(torch.Size((1, 1)))
    assert quantised.count(False) == averages
    assert averages and quantised.count(True)


def test_int8_needs_images() -> None:
    with pytest.raises(UsageError, match="--calibrate FOLDER"):
        export.export_int8(small("mirnet-xs", 8), Path("never"), lows=[])


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExtraMissing, match=r"^onnxscript: .*'mirnet-pipeline\[export\]'$"):
        export.export_onnx(small("mirnet-xs", 8), Path("never"))


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
    model = small("mirnet-xs", 8)
    assert isinstance(model, MIRNet)
    folder = save_model(model, tmp_path / "model")
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
