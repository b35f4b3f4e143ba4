"""How fast the networks are: plain form, fast form, and the floor, side by side in one run.

    python -m benchmarks.inference [--networks mirnet mirnet-v2] [--sizes 256x256 400x600]

The plain form is float32, contiguous, eager, with every operation where the paper has it. The
floor is the convolutions of the fast form alone, same shapes, layout and precision, back to back;
on a GPU both are CUDA graphs, and there is a second floor where the fast form has made grouped
convolutions dense: the grouped ones. Every time is the best of several, in seconds of wall clock
and of processor. Outputs are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain import plain_forward
from mirnet.hardware import resolve_dtype
from mirnet.inference import network as network_module
from mirnet.inference.memory import keep_freed_memory
from mirnet.inference.network import FastNetwork
from mirnet.models import build

# to the plain form, in dB
LEAST_PSNR = {"bf16": 45, "float32": 100}
CONVOLUTION = torch.ops.aten.convolution.default


@dataclass(frozen=True)
class Row:
    """One network at one size in one precision. Times in seconds."""

    network: str
    size: str
    precision: str
    device: str
    threads: int
    batch: int
    num_convolutions: int
    plain_s: float
    eager_s: float
    fast_s: float
    floor_s: float
    grouped_floor_s: float | None
    plain_cpu_s: float
    eager_cpu_s: float
    fast_cpu_s: float
    floor_cpu_s: float
    first_compiled_s: float | None
    fast_to_floor: float
    eager_to_floor: float
    speedup: float
    psnr_db: float
    peak_gib: float | None


class Recorder(TorchDispatchMode):
    """Keeps the arguments of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is CONVOLUTION:
            self.calls.append(args)
        return func(*args, **(kwargs or {}))


def best(run: Callable[[], Any], *, repeats: int, device: torch.device) -> tuple[float, float]:
    """Least wall-clock and processor seconds of several runs."""
    walls, processor = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        processor.append(time.process_time() - cpu)
    return min(walls), min(processor)


def graphed(run: Callable[[], None]) -> Callable[[], None]:
    """The same as one CUDA graph."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def time_convolutions(
    network: FastNetwork, image: Tensor, *, repeats: int
) -> tuple[tuple[float, float], int]:
    """Wall-clock and processor seconds of a network's convolutions alone, and how many."""
    # with gradients on, convolutions are not fused with their activations
    with torch.enable_grad(), Recorder() as recorder:
        network._model(network._placed(image))
    calls = [tuple(a.detach() if isinstance(a, Tensor) else a for a in c) for c in recorder.calls]

    def run() -> None:
        for call in calls:
            CONVOLUTION(*call)

    with torch.inference_mode():
        replay = graphed(run) if network.device.type == "cuda" else run
        return best(replay, repeats=repeats, device=network.device), len(calls)


def photographs(batch: int, height: int, width: int) -> Tensor:
    """Smooth dark images with noise: (N, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 9, 11, generator=generator) * 0.3
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def measure(
    name: str, size: str, *, precision: str, repeats: int, compile: bool, batch: int
) -> Row:
    height, width = map(int, size.split("x"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = resolve_dtype(precision, device)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = build(name).eval()
    image = photographs(batch, height, width)
    on_device = image.to(device)
    with torch.inference_mode():
        plain_model = model.to(device)
        plain_run = lambda: plain_forward(plain_model, on_device)  # noqa: E731
        plain = best(plain_run, repeats=max(repeats // 2, 1), device=device)
        wanted = plain_run().cpu()
    eager_network = FastNetwork(model, device=device, dtype=dtype, compile=False)
    eager = best(lambda: eager_network(on_device), repeats=repeats, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # from here on that of the fast form
    got, fast, first = eager_network(on_device), eager, None
    if compile:
        network = FastNetwork(model, device=device, dtype=dtype)
        network(on_device)
        started = time.perf_counter()
        network(on_device)
        first = time.perf_counter() - started
        fast = best(lambda: network(on_device), repeats=repeats, device=device)
        got = network(on_device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    floor, num_convolutions = time_convolutions(eager_network, on_device, repeats=repeats)
    grouped = None
    if device.type == "cuda" and any(
        isinstance(m, nn.Conv2d) and m.groups != 1 for m in plain_model.modules()
    ):
        with patch.object(network_module, "make_dense", lambda _: None):
            as_published = FastNetwork(plain_model, device=device, dtype=dtype, compile=False)
        grouped = time_convolutions(as_published, on_device, repeats=repeats)[0][0]
    error = float((got.cpu().float().clamp(0, 1) - wanted.clamp(0, 1)).square().mean())
    return Row(
        network=name,
        size=size,
        precision="bf16" if dtype == torch.bfloat16 else "float32",
        device=device.type,
        threads=torch.get_num_threads(),
        batch=batch,
        num_convolutions=num_convolutions,
        plain_s=plain[0],
        eager_s=eager[0],
        fast_s=fast[0],
        floor_s=floor[0],
        grouped_floor_s=grouped,
        plain_cpu_s=plain[1],
        eager_cpu_s=eager[1],
        fast_cpu_s=fast[1],
        floor_cpu_s=floor[1],
        first_compiled_s=first,
        fast_to_floor=fast[1] / floor[1] if device.type == "cpu" else fast[0] / floor[0],
        eager_to_floor=eager[1] / floor[1] if device.type == "cpu" else eager[0] / floor[0],
        speedup=plain[1] / fast[1] if device.type == "cpu" else plain[0] / fast[0],
        psnr_db=float(10 * np.log10(1 / max(error, 1e-12))),
        peak_gib=peak,
    )


def first_image(model: str, size: str, *, cache: str | None = None) -> float:
    """Seconds from the start of a fresh process to its first enhanced image.

    Args:
        cache: compile for the size at once, as a batch does, with compiled code kept here.
    """
    height, width = map(int, size.split("x"))
    code = (
        "import numpy as np, torch\n"
        "from mirnet.inference import Enhancer\n"
        "from mirnet.models import build\n"
        "from pathlib import Path\n"
        f"cache = {cache!r}\n"
        f"network = build({model!r})\n"
        "enhancer = Enhancer(network, cache_dir=cache and Path(cache))\n"
        f"if cache: enhancer.fix_shapes([({height}, {width})])\n"
        f"enhancer(np.zeros(({height}, {width}, 3), np.uint8))\n"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def table(rows: list[Row]) -> str:
    lines = [
        "| network | size | precision | plain | eager | fast | floor | fast / floor | "
        "eager / floor | plain / fast | PSNR to plain | fast, images per second | peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        seconds = (
            (r.plain_cpu_s, r.eager_cpu_s, r.fast_cpu_s, r.floor_cpu_s)
            if r.device == "cpu"
            else (r.plain_s, r.eager_s, r.fast_s, r.floor_s)
        )
        size = r.size if r.batch == 1 else f"{r.batch}x {r.size}"
        times = " | ".join(f"{value:.{2 if r.device == 'cpu' else 4}f}" for value in seconds)
        if r.grouped_floor_s is not None:
            times += f" (grouped {r.grouped_floor_s:.4f})"
        lines.append(
            f"| {r.network} | {size} | {r.precision} | {times} | "
            f"{r.fast_to_floor:.2f} | {r.eager_to_floor:.2f} | {r.speedup:.1f} | "
            f"{r.psnr_db:.1f} dB | {r.batch / r.fast_s:.2f} | "
            f"{'' if r.peak_gib is None else f'{r.peak_gib:.2f} GiB'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["mirnet", "mirnet-v2"])
    parser.add_argument("--sizes", nargs="+", default=["256x256", "400x600"])
    parser.add_argument("--precisions", nargs="+", default=["auto", "float32"])
    parser.add_argument("--batch", type=int, default=1, help="images at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--first-image", action="store_true", help="time fresh processes as well")
    parser.add_argument("--json", type=Path, default=Path("reports/benchmark-inference.json"))
    options = parser.parse_args()
    keep_freed_memory()  # as an Enhancer does
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows, first = [], {}
    for name in options.networks:
        for size in options.sizes:
            for precision in options.precisions:
                row = measure(
                    name,
                    size,
                    precision=precision,
                    repeats=options.repeats,
                    compile=not options.no_compile,
                    batch=options.batch,
                )
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
        if options.first_image:
            with tempfile.TemporaryDirectory() as cache:
                first[name] = {
                    "uncompiled": first_image(name, options.sizes[0]),
                    "compiled": first_image(name, options.sizes[0], cache=cache),
                    "compiled, second process": first_image(name, options.sizes[0], cache=cache),
                }
            print(name, first[name], flush=True)
    content = {"rows": [asdict(row) for row in rows], "first_image_s": first}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(content, indent=2) + "\n")
    print("seconds of processor time on CPU, of wall clock on a GPU")
    print(table(rows))
    apart = [row for row in rows if row.psnr_db < LEAST_PSNR[row.precision]]
    if apart:
        raise SystemExit(f"outputs do not agree: {apart}")


if __name__ == "__main__":
    main()
