"""The simulation of the docs, on as many keys as a test has time for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_invariants_hold_over_kills_and_sleepers() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.batch_simulation"),
            *("--keys", "20000", "--first-shard", "4", "--processes", "1"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["keys"], told["invariants"]) == (20_000, "hold")
    assert (told["killed"], told["slept through its lease"], told["woke up and went on"]) == (
        2,
        2,
        2,
    )
    assert told["writes"] > 20_000
