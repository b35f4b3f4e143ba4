"""Export of networks to other runtimes: torch.export (pt2), ONNX, and ONNX in int8.

Batch, height and width are dynamic; height and width are multiples of the network's
``size_multiple`` (MIRNet: 4), at least 8. Input and output are (N, 3, H, W) float32 in [0, 1], the
output unclamped. The graph includes the margin (:mod:`mirnet.models.margin`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.export import Dim, ExportedProgram

from mirnet.errors import UsageError
from mirnet.extras import need
from mirnet.models.margin import EXPORTED_LEAST, Margined, rounded_up
from mirnet.models.network import Network

Batch = npt.NDArray[np.float32]

INPUT, OUTPUT = "image", "enhanced"
_ONNX = ("onnx", "onnxruntime", "onnxscript")
# batch, and height and width in steps of the network's multiple, 4 at least
_SIZES = ((1, 2, 2), (2, 9, 13), (1, 16, 6))
_MAX_SIDE = 16384


def export_program(model: Network) -> ExportedProgram:
    """The network with its margin as a graph with dynamic batch, height and width."""
    entry = model.architecture
    entry.check_export("pt2")
    unit = entry.size_multiple
    least = rounded_up(max(EXPORTED_LEAST, entry.min_size), multiple=unit)
    height, width = (
        unit * Dim(f"{name}{unit}", min=least // unit, max=_MAX_SIDE // unit)
        for name in ("height", "width")
    )
    shapes = {INPUT: {0: Dim("batch", min=1, max=1024), 2: height, 3: width}}
    # a batch of 1 or equal sides would become constants of the graph
    example = torch.rand(2, entry.channels, 4 * least, 5 * least)
    return torch.export.export(Margined(model.folded()).eval(), (example,), dynamic_shapes=shapes)


def export_pt2(model: Network, path: Path) -> float:
    """Write a ``.pt2`` that ``torch.export.load(path).module()`` runs without this package.

    Returns:
        The maximum deviation from the network with its margin, over several sizes.
    """
    torch.export.save(export_program(model), path)
    loaded = torch.export.load(path).module()
    return _deviation(model, lambda image: loaded(torch.from_numpy(image)).detach().numpy())


def export_onnx(model: Network, path: Path) -> float:
    """Write an ONNX file and run it in onnxruntime.

    Returns:
        The maximum deviation of onnxruntime from the network, over several sizes.

    Raises:
        ExtraMissing: the packages of the ``export`` extra are missing.
    """
    model.architecture.check_export("onnx")
    need("export", *_ONNX)
    program = torch.onnx.export(
        export_program(model),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)
    return _deviation(model, onnx_runner(path))


def export_int8(model: Network, path: Path, *, lows: Sequence[Batch]) -> float:
    """Write an ONNX file whose convolutions compute in int8 on CPU.

    Weights are quantised per channel, activations by their ranges on ``lows``. Convolutions of
    global averages stay float32: they process a few numbers per image, which set its brightness.

    Args:
        lows: calibration images, each (1, 3, H, W) float32 in [0, 1], sides multiples of the
            network's ``size_multiple``.

    Returns:
        PSNR in dB between the int8 and the float32 network on ``lows``, clamped to [0, 1].

    Raises:
        UsageError: no calibration image, or the network has no int8 form.
        ExtraMissing: the packages of the ``export`` extra are missing.
    """
    model.architecture.check_export("int8")
    need("export", *_ONNX)
    if not lows:
        raise UsageError("int8 needs dark images to calibrate on: --calibrate FOLDER")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        export_onnx(model, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            _calibration(lows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_convolutions_of_averages(prepared),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    run = onnx_runner(path)
    errors = [np.square(run(low).clip(0, 1) - _reference(model, low).clip(0, 1)) for low in lows]
    mean = float(np.mean([error.mean() for error in errors]))
    return float(10 * np.log10(1 / max(mean, 1e-12)))


def _convolutions_of_averages(path: Path) -> list[str]:
    """Names of the convolutions of an ONNX file whose input is (N, C, 1, 1)."""
    import onnx

    graph = onnx.load(path).graph
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim[2:]]
        for value in graph.value_info
    }
    return [
        node.name
        for node in graph.node
        if node.op_type == "Conv" and sides.get(node.input[0]) == [1, 1]
    ]


def onnx_runner(path: Path) -> Any:
    """An ONNX file as a function of a float32 batch, on CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: session.run([OUTPUT], {INPUT: image})[0]


def _calibration(lows: Sequence[Batch]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Lows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: Iterator[Batch] = iter(lows)

        def get_next(self) -> dict[str, Batch] | None:
            low = next(self._rest, None)
            return None if low is None else {INPUT: low}

    return Lows()


def _deviation(model: Network, run: Any) -> float:
    generator, entry = np.random.default_rng(0), model.architecture
    unit = max(math.lcm(4, entry.size_multiple), -(-entry.min_size // 2))
    shapes = ((n, entry.channels, h * unit, w * unit) for n, h, w in _SIZES)
    images = [generator.random(shape, dtype=np.float32) for shape in shapes]
    return max(float(np.abs(run(image) - _reference(model, image)).max()) for image in images)


@torch.no_grad()
def _reference(model: Network, image: Batch) -> Batch:
    out: Batch = Margined(model).eval()(torch.from_numpy(image)).numpy()
    return out
