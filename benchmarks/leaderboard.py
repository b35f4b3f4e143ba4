"""Networks side by side: each trained for the same processor time, and scored by one protocol.

    python -m benchmarks.leaderboard DATA --core-minutes 10 [--networks iat sci ...]

DATA is in the LoL layout. Each network is trained from scratch by the preset's recipe with its own
objective, in a process of its own; its last weights are scored on validation pairs of other scenes
and on eval15 where it is there. Baselines are rows, too. Each row is a file: the same command goes
on after an interruption, within a network from its last checkpoint, and tries again what failed.
At the end index.html, table.md and leaderboard.json show all rows of the folder. Each row is also
an evaluation in MLflow, unless --no-mlflow is given.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.leaderboard_rows import (
    FAILED,
    PROTOCOL,
    ROW,
    Protocol,
    load_failures,
    load_protocol,
    save,
)
from mirnet.atomic import write_atomically
from mirnet.config import apply_engine_defaults, load_settings
from mirnet.errors import MirnetError, UsageError

LARGEST_GMAC = 200.0
"""Of a 400x600 image: a larger network makes too few steps in minutes on two cores."""


def default_networks() -> list[str]:
    """The cheapest variant of each family that is not too large and can be trained."""
    from mirnet.inference.catalogue import facts_of
    from mirnet.models.registry import architectures

    names = []
    for architecture in architectures():
        try:
            architecture.check_plain()
        except UsageError:
            continue
        facts = [facts_of(architecture, name) for name in architecture.variants]
        cheapest = min(facts, key=lambda fact: fact.gmac)
        if cheapest.gmac <= LARGEST_GMAC:
            names.append(cheapest.name)
    return names


def prepare(
    data: Path, into: Path, *, core_minutes: float, preset: str, overrides: Sequence[str]
) -> Protocol:
    """The protocol of the folder, written by the first call.

    Raises:
        UsageError: the rows in the folder were made by another one.
        DataError: no data in the LoL layout.
    """
    from mirnet.data.manifest import build_manifest
    from mirnet.data.splits import split_pairs, val_stands_in
    from mirnet.data.versioning import data_version
    from mirnet.hardware import describe_processor
    from mirnet.params import load_params

    digest = data_version(data).digest
    if (into / PROTOCOL).is_file():
        protocol = load_protocol(into)
        protocol.check(digest, core_minutes, preset, list(overrides))
        return protocol
    params = load_params(preset, overrides=tuple(overrides))
    roles = split_pairs(build_manifest(data), params.validation)
    if val_stands_in(roles):
        roles["eval"] = ()
    protocol = Protocol(
        digest=digest,
        core_minutes=core_minutes,
        preset=preset,
        overrides=tuple(overrides),
        roles=roles,
        seen=_seen(data, roles),
        processor=describe_processor(),
    )
    save(protocol, into / PROTOCOL)
    return protocol


def _seen(data: Path, roles: dict[str, tuple[str, ...]]) -> dict[str, str | None]:
    """Of each pair of eval15 the training pair of the same scene; of validation scenes none."""
    from mirnet.data.layout import EVAL_SPLIT, TRAIN_SPLIT
    from mirnet.data.overlap import find_overlap

    if not roles["eval"]:
        return {}
    train = set(roles["train"])
    overlap = find_overlap(data / TRAIN_SPLIT, data / EVAL_SPLIT)
    twins = {
        f"{EVAL_SPLIT}/{Path(shared.second).name}": f"{TRAIN_SPLIT}/{Path(shared.first).name}"
        for shared in overlap.shared
    }
    return {i: twins[i] if twins.get(i) in train else None for i in roles["eval"]}


def run_child(name: str, options: argparse.Namespace) -> None:
    """Measure one method in a process of its own: its memory, and what breaks it, are its own."""
    folder = options.into / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.leaderboard", str(options.data), "--only", name]
    command += ["--into", str(options.into), "--core-minutes", str(options.core_minutes)]
    command += ["--no-mlflow"] * (not options.mlflow)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        # processor time is what is compared: threads that spin while they wait must not count
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    if code == 0:
        (folder / FAILED).unlink(missing_ok=True)
        return
    last = (folder / "log.txt").read_text(encoding="utf-8").strip().rpartition("\n")[2]
    reason = f"ended by signal {-code}" if code < 0 else last
    write_atomically(folder / FAILED, reason + "\n")


def measure_one(options: argparse.Namespace) -> None:
    """The work of a child."""
    from benchmarks.leaderboard_method import measure

    tracking = load_settings() if options.mlflow else None
    measure(
        options.only, options.data, options.into, load_protocol(options.into), tracking=tracking
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--core-minutes", type=float, default=10, help="of each network")
    parser.add_argument("--networks", nargs="+", help="model.name; none: the cheapest per family")
    parser.add_argument("--preset", default="cpu-mirnet", help="its recipe is that of all networks")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", help="section.key=value")
    parser.add_argument("--into", type=Path, default=Path("reports/leaderboard"))
    parser.add_argument("--no-mlflow", action="store_false", dest="mlflow")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if a network has no row."""
    options = _options(arguments)
    apply_engine_defaults()
    if options.only:
        measure_one(options)
        return 0
    from mirnet.evaluation.baselines import BASELINES
    from mirnet.models.registry import by_name

    for name in options.networks or ():
        by_name(name)  # raises for what is not known
    if options.mlflow:
        from mirnet.tracking import check_tracking

        check_tracking(load_settings())
    prepare(
        options.data,
        options.into,
        core_minutes=options.core_minutes,
        preset=options.preset,
        overrides=options.overrides,
    )
    names = [*BASELINES, *(options.networks or default_networks())]
    for number, name in enumerate(names, start=1):
        if not (options.into / name / ROW).is_file():
            print(f"{number}/{len(names)} {name}", flush=True)
            run_child(name, options)
    from benchmarks.leaderboard_page import write_leaderboard

    print(write_leaderboard(options.into, options.data))
    failures = load_failures(options.into)
    for name, reason in failures.items():
        print(f"{name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    # ends the child, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except MirnetError as error:
        sys.exit(str(error))
