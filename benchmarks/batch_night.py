"""What a night of very many images needs, from the measured cost of each step.

    python -m benchmarks.batch_night measure > steps.json      # on this machine, small
    python -m benchmarks.batch_night compute steps.json        # the tables of docs/scaling-batch.md

Processor seconds are measured (they do not depend on what else the machine does); prices and
limits of a public cloud are assumptions, named below and to be replaced by your own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.batch import BASE, MODEL, bucket, dark_picture, fill
from mirnet.batch.digests import Digests
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row, dump_rows
from mirnet.batch.plan import BatchPlan, Planner
from mirnet.batch.provenance import to_metadata
from mirnet.config import load_settings
from mirnet.images import decode, encode
from mirnet.images.stats import measure
from mirnet.params import EnhanceParams
from mirnet.storage.places import open_store
from mirnet.storage.store import ObjectInfo

NIGHT_S = 8 * 3600


@dataclass(frozen=True)
class Steps:
    """Processor seconds of the client an image (or a key), and sizes in bytes."""

    decode_s: float
    measure_s: float
    encode_s: float
    get_s: float
    put_s: float
    list_key_s: float
    plan_key_s: float
    mark_s: float
    row_s: float
    model_s: float
    input_bytes: int
    output_bytes: int
    row_bytes: float
    plan_key_bytes: float


@dataclass(frozen=True)
class Prices:
    """Assumptions: list prices of a large public cloud, US dollars."""

    get_per_1000: float = 0.0004
    put_per_1000: float = 0.005
    list_per_1000: float = 0.005
    inventory_per_million: float = 0.0025
    core_hour: float = 0.04
    prefix_puts_per_s: int = 3500
    prefix_gets_per_s: int = 5500


def cost(function: Callable[[], object], repeat: int) -> float:
    """Processor seconds of a call, of this thread."""
    function()
    begun = time.thread_time()
    for _ in range(repeat):
        function()
    return (time.thread_time() - begun) / repeat


def measure_steps(model: str) -> Steps:
    import torch

    from mirnet.inference import Enhancer
    from mirnet.models import build

    data = dark_picture(0)
    image = decode(data, name="a.png")
    torch.set_num_threads(1)
    enhancer = Enhancer(build(model))
    for _ in range(4):  # compiled when a size comes again
        enhancer.enhance_image(image)
    enhanced = encode(image)
    params = EnhanceParams()
    row = Row(
        input_key="2026/11/24/0001234.png",
        input_version="d" * 32,
        input_size=len(data),
        status="enhanced",
        run_id="00000042-20261124T020000Z-abcdef",
        settings_digest=Digests.of(params).output,
        model_name="mirnet",
        model_version="7",
        model_run_id="e" * 32,
        data_digest="f" * 32 + ".dir",
        git_commit="0" * 40,
        weights_digest="9" * 64,
        output_key="2026/11/24/0001234.png",
        luminance_before=0.06123,
        luminance_after=0.41234,
        width=600,
        height=400,
        seconds=0.4,
    )
    rows = [
        Row(**{name: getattr(row, name) for name in row.__slots__} | changed(number))
        for number in range(20_000)
    ]
    dumped = dump_rows(rows, "parquet")
    metadata = to_metadata(row)
    with bucket() as server:
        store = open_store(f"{BASE}/in", load_settings())
        store.put("a.png", data)
        number = iter(range(10**6))
        get_s = cost(lambda: store.get("a.png"), 100)
        put_s = cost(lambda: store.put(f"o{next(number)}", enhanced, metadata=metadata), 100)
        fill(server, "many", [f"{n:06d}.png" for n in range(3000)])
        many = open_store(f"{BASE}/many", load_settings())
        list_key_s = cost(lambda: list(many.list()), 3) / 3000
        runs = open_store(f"{BASE}/records", load_settings())
        runs.put("runs/1/manifest.parquet", dumped)
        runs.put("runs/1/summary.json", b"{}")
        past = Ledger(runs).past_runs()
        mark_s = cost(lambda: list(past.done_records()), 2) / len(rows)
        plan_key_s, plan_key_bytes = plan_costs(list(past.done_records()), params)
    return Steps(
        decode_s=cost(lambda: decode(data, name="a.png"), 20),
        measure_s=cost(lambda: measure(image.pixels), 20),
        encode_s=cost(lambda: encode(image), 20),
        get_s=get_s,
        put_s=put_s,
        list_key_s=list_key_s,
        plan_key_s=plan_key_s,
        mark_s=mark_s,
        row_s=cost(lambda: dump_rows(rows, "parquet"), 2) / len(rows),
        model_s=cost(lambda: enhancer.enhance_image(image), 2),
        input_bytes=len(data),
        output_bytes=len(enhanced),
        row_bytes=len(dumped) / len(rows),
        plan_key_bytes=plan_key_bytes,
    )


def changed(number: int) -> dict[str, object]:
    key, chance = f"2026/11/24/{number:07d}.png", random.Random(number)
    return {
        "input_key": key,
        "output_key": key,
        "input_version": hashlib.md5(key.encode()).hexdigest(),
        **{
            name: round(chance.random(), 5)
            for name in ("luminance_before", "luminance_after", "dark_share", "bright_share")
        },
        "noise": round(chance.random() / 50, 6),
        "saturation": round(chance.random(), 5),
        "seconds": round(chance.random(), 4),
        "input_size": chance.randrange(10**5, 10**6),
    }


def plan_costs(marks: list[Row], params: EnhanceParams) -> tuple[float, float]:
    """Processor seconds and bytes on disk a key, 99 of 100 of which are done."""
    source = marks[0].source_digest or ""
    planner = Planner(model=MODEL, params=params, digests=Digests.of(params), source_digest=source)
    inputs = [ObjectInfo(m.input_key, 1, m.input_version, 0.0) for m in marks]
    begun = time.thread_time()
    with BatchPlan() as plan:
        plan.add_done(marks[: len(marks) * 99 // 100], planner)
        plan.add_outputs(inputs)
        plan.add_inputs(inputs, planner)
        seconds = time.thread_time() - begun
        return seconds / len(inputs), plan.size_on_disk() / len(inputs)


def tables(steps: Steps, prices: Prices, *, pictures: float, stored: float) -> str:
    """A night of ``images`` new ones in a bucket that holds ``stored``."""
    image_s = sum(
        (steps.decode_s, steps.encode_s, 2 * steps.measure_s, steps.get_s, steps.put_s, steps.row_s)
    )
    model_hours, beside_hours = pictures * steps.model_s / 3600, pictures * image_s / 3600
    lists = 2 * stored / 1000
    prefixes = max(1, -(-pictures // (NIGHT_S * prices.prefix_puts_per_s)))
    sent = pictures * steps.output_bytes
    received = pictures * steps.input_bytes
    requests = pictures / 1e3 * (prices.get_per_1000 + prices.put_per_1000)
    facts = {
        "requests: GET, PUT, LIST": f"{pictures:,.0f}, {pictures:,.0f}, {lists:,.0f}",
        "requests per second over 8 hours": f"{2 * pictures / NIGHT_S:,.0f}",
        "prefixes that these need": f"{prefixes:,.0f}",
        "bytes read, written": f"{received / 1e12:,.1f} TB, {sent / 1e12:,.1f} TB",
        "mean network, both ways": f"{(sent + received) * 8 / NIGHT_S / 1e9:,.1f} Gbit/s",
        "listing, one process": f"{2 * stored * steps.list_key_s / 3600:,.1f} h",
        "planning, one process": f"{stored * (steps.plan_key_s + steps.mark_s) / 3600:,.1f} h",
        "plan on disk": f"{stored * steps.plan_key_bytes / 1e9:,.1f} GB",
        "manifest of the night": f"{pictures * steps.row_bytes / 1e9:,.1f} GB",
        "processor time: model": f"{model_hours:,.0f} core hours",
        "processor time: all else": f"{beside_hours:,.0f} core hours",
        "cores for 8 hours": f"{(model_hours + beside_hours) / 8:,.0f}",
        "money: GET and PUT": f"${requests:,.0f}",
        "money: LIST": f"${lists / 1e3 * prices.list_per_1000:,.0f}",
        "money: an inventory instead": f"${2 * stored / 1e6 * prices.inventory_per_million:,.2f}",
        "money: cores": f"${(model_hours + beside_hours) * prices.core_hour:,.0f}",
    }
    lines = [f"| {pictures:,.0f} new pictures of {stored:,.0f} stored | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("measure")
    command.add_argument("--model", default="mirnet-xs")
    command = commands.add_parser("compute")
    command.add_argument("steps", type=Path)
    command.add_argument("--pictures", type=float, default=1e8)
    command.add_argument("--stored", type=float, default=1e9)
    options = parser.parse_args()
    if options.command == "measure":
        json.dump(asdict(measure_steps(options.model)), sys.stdout, indent=2)
        return
    steps = Steps(**json.loads(options.steps.read_text()))
    print(tables(steps, Prices(), pictures=options.pictures, stored=options.stored))


if __name__ == "__main__":
    main()
