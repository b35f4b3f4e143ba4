"""Enhancement of buckets: what the machinery costs beside the model.

    python -m benchmarks.batch overlap --images 500      # against the model alone, and a plain loop
    python -m benchmarks.batch planning --keys 100000    # 99 percent of them done
    python -m benchmarks.batch memory --images 5000      # must stay flat

All against a real S3 server on loopback that this starts and stops. Targets: overlap at most 1.15
of the model alone and at least 4 times faster than the loop; planning at most 60 s and 300 MiB.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import PIL.Image

from mirnet.batch.digests import Digests
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row
from mirnet.batch.run import preview, run_batch
from mirnet.batch.run_record import RunRecord
from mirnet.config import environment, load_settings
from mirnet.images import Image, decode, to_png
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server
from mirnet.storage.store import Store

MODEL = ModelRef("mirnet", "1")
HEIGHT, WIDTH = 400, 600
BASE = "s3://bench"


@contextmanager
def bucket() -> Iterator[S3Server]:
    with (
        tempfile.TemporaryDirectory(prefix="mirnet-bench-") as folder,
        S3Server(Path(folder), buckets=("bench",)) as server,
        environment(**server.environment),
    ):
        yield server
        server.kill()


def dark_picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """Smooth structure plus sensor noise: compresses as a photograph does, not as static."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(2, 60, (height // 50 + 2, width // 50 + 2, 3))
    rows = np.linspace(0, coarse.shape[0] - 1.001, height)
    columns = np.linspace(0, coarse.shape[1] - 1.001, width)
    smooth = coarse[rows.astype(int)][:, columns.astype(int)]
    noisy = smooth + random.normal(0, 3, (height, width, 3))
    return to_png(noisy.clip(0, 255).astype(np.uint8))


def upload(store: Store, objects: Iterator[tuple[str, bytes]], *, threads: int = 8) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda pair: store.put(*pair), objects):
            pass


def fill(server: S3Server, folder: str, names: list[str]) -> None:
    """Many tiny objects, past the S3 layer, whose signatures would take most of the time."""

    def part(start: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.ports["filer.port"])
        for name in names[start::4]:
            connection.request("PUT", f"/buckets/bench/{folder}/{name}", body=name.encode())
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 201), answer.status

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(part, range(4)))


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class PeakMemory:
    """Largest resident size of this process, looked at every 50 ms."""

    def __enter__(self) -> PeakMemory:
        self.peak = resident_mib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, resident_mib())


def overlap(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from mirnet.inference import Enhancer
    from mirnet.models import build

    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = build(options.model)
    enhancer = Enhancer(network, precision="auto")
    pictures = {f"{n:05d}.png": dark_picture(n) for n in range(options.images)}
    decoded = [decode(data, name=key) for key, data in pictures.items()]
    for _ in range(4):  # compiled when a size comes again
        enhancer.enhance_image(decoded[0])
    with bucket():
        source = open_store(f"{BASE}/in", load_settings())
        upload(source, iter(pictures.items()))
        results: dict[str, list[float]] = {"alone": [], "batch": [], "loop": []}
        for round_ in range(options.rounds):
            results["alone"].append(_alone(enhancer, decoded[: options.alone_images], options))
            begun = time.perf_counter()
            done = run_batch(
                f"{BASE}/in",
                f"{BASE}/out{round_}",
                enhance=enhancer,
                model=MODEL,
                params=EnhanceParams(),
                settings=load_settings(),
            )
            results["batch"].append(time.perf_counter() - begun)
            assert done.enhanced == options.images
            results["alone"].append(_alone(enhancer, decoded[: options.alone_images], options))
            loop = _plain_loop(source, f"{BASE}/loop{round_}", network, options)
            results["loop"].append(loop)
    alone, batch, loop = (mean(results[name]) for name in ("alone", "batch", "loop"))
    return {
        "images": options.images,
        "model": options.model,
        "seconds": {name: [round(v, 2) for v in values] for name, values in results.items()},
        "batch_over_model_alone": round(batch / alone, 3),
        "times_faster_than_loop": round(loop / batch, 2),
    }


def _alone(enhancer: Any, decoded: list[Image], options: argparse.Namespace) -> float:
    """The model on decoded images; on a part, before and after the batch, scaled up."""
    begun = time.perf_counter()
    for image in decoded:
        enhancer.enhance_image(image)
    return (time.perf_counter() - begun) * options.images / len(decoded)


def _plain_loop(source: Store, target: str, network: Any, options: argparse.Namespace) -> float:
    """Get, decode, enhance, encode, put, one after the other; on a part, scaled up.

    The network is in eager float32, with the operations of the paper (benchmarks/plain.py);
    images go through Pillow as it comes.
    """
    import torch

    from benchmarks.plain import plain_forward

    store = open_store(target, load_settings())
    number = min(options.images, options.loop_images)
    begun = time.perf_counter()
    for n in range(number):
        key = f"{n:05d}.png"
        picture = np.array(PIL.Image.open(io.BytesIO(source.get(key).data)))
        low = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            enhanced = plain_forward(network, low.contiguous())[0].clamp(0, 1)
        pixels = (enhanced.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        encoded = io.BytesIO()
        PIL.Image.fromarray(pixels).save(encoded, "PNG")
        store.put(key, encoded.getvalue())
    return (time.perf_counter() - begun) * options.images / number


def planning(options: argparse.Namespace) -> dict[str, Any]:
    done = int(options.keys * 0.99)
    params = EnhanceParams()
    with bucket() as server:
        source = open_store(f"{BASE}/in", load_settings())
        target = open_store(f"{BASE}/out", load_settings())
        names = [f"{n % 100:02d}/{n:07d}.png" for n in range(options.keys)]
        begun = time.perf_counter()
        fill(server, "in", names)
        fill(server, "out", names[:done])
        upload_s = round(time.perf_counter() - begun, 1)
        record = RunRecord(Ledger.of_target(target).run("00000001-past"), format="parquet")
        versions = {info.key: info.version for info in source.list()}
        for number, name in enumerate(names[:done]):
            record.add(
                Row(
                    input_key=name,
                    input_version=versions[name],
                    input_size=1,
                    status="enhanced",
                    run_id="00000001-past",
                    settings_digest=Digests.of(params).output,
                    model_name=MODEL.name,
                    model_version=MODEL.version,
                    output_key=name,
                )
            )
            if number % 10_000 == 0:
                record.flush()
        record.finish({})
        # a process of its own: its memory is not that of the preparations above
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(plan_once)
    assert (result.pop("planned"), result.pop("skipped")) == (options.keys, done)
    return {"keys": options.keys, "todo": options.keys - done} | result | {"upload_s": upload_s}


def plan_once() -> dict[str, Any]:
    with PeakMemory() as memory:
        begun, cpu = time.perf_counter(), time.process_time()
        with preview(
            f"{BASE}/in",
            f"{BASE}/out",
            model=MODEL,
            params=EnhanceParams(),
            settings=load_settings(),
        ) as plan:
            return {
                "planned": plan.counts.planned,
                "skipped": plan.counts.skipped,
                "seconds": round(time.perf_counter() - begun, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "resident_mib_peak": round(memory.peak),
            }


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Resident size every 500 images of 60 sizes, through a small network."""
    import torch

    from mirnet.inference import Enhancer
    from mirnet.models import build

    torch.manual_seed(0)
    enhancer = Enhancer(build("mirnet-xs", n_feat=8))
    pictures = [dark_picture(n, 64 + 4 * (n % 20), 96 + 4 * (n % 30)) for n in range(60)]
    sizes: dict[int, float] = {}

    def progress(done: int, total: int) -> None:
        if done % 500 == 0 or done == total:
            sizes[done] = round(resident_mib(), 1)

    with bucket():
        source = open_store(f"{BASE}/in", load_settings())
        upload(source, ((f"{n:05d}.png", pictures[n % 60]) for n in range(options.images)))
        begun = time.perf_counter()
        run_batch(
            f"{BASE}/in",
            f"{BASE}/out",
            enhance=enhancer,
            model=MODEL,
            params=EnhanceParams(),
            settings=load_settings(),
            progress=progress,
        )
        seconds = time.perf_counter() - begun
    return {"images": options.images, "seconds": round(seconds, 1), "resident_mib": sizes}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("overlap")
    command.add_argument("--images", type=int, default=500)
    command.add_argument("--alone-images", type=int, default=100, help="twice, scaled up")
    command.add_argument("--loop-images", type=int, default=20, help="scaled up")
    command.add_argument("--rounds", type=int, default=1)
    command.add_argument("--model", default="mirnet-s")
    command.set_defaults(run=overlap)
    command = commands.add_parser("planning")
    command.add_argument("--keys", type=int, default=100_000)
    command.set_defaults(run=planning)
    command = commands.add_parser("memory")
    command.add_argument("--images", type=int, default=5000)
    command.set_defaults(run=memory)
    options = parser.parse_args()
    print(json.dumps(options.run(options), indent=2))


if __name__ == "__main__":
    main()
