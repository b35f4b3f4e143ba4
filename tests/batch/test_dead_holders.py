"""Whose lease is taken over at once, and who is waited for."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest

from mirnet.batch.lease import Lease, LeaseEntry
from mirnet.batch.ledger import Ledger
from mirnet.config import Settings
from mirnet.storage.places import open_store
from tests.batch.samples import enhance_batch, fill, picture

PICTURES = {f"{n}.png": picture(n) for n in range(4)}


enhance = functools.partial(enhance_batch, contact_images=0)

_JOB = """
import sys, time
from tests.batch.samples import MODEL, double
from mirnet.batch.run import run_batch
from mirnet.config import load_settings
from mirnet.params import EnhanceParams
def slow(image):
    print("at work", flush=True)
    time.sleep(60)
    return double(image)
run_batch(
    *sys.argv[1:], enhance=slow, model=MODEL, params=EnhanceParams(), settings=load_settings()
)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_who_comes_after_a_dead_job_of_this_machine_need_not_wait(
    end: signal.Signals, places: tuple[str, str]
) -> None:
    fill(places[0], PICTURES)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MIRNET_STOP_S": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", _JOB, *places], env=environment, stdout=subprocess.PIPE
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"at work\n"
        held = enhance(*places)
        assert held.held_by is not None
        assert f"pid {job.pid} is at work" in held.held_by
        job.send_signal(end)
        # the image in the model never comes to a safe point
        job.wait(timeout=60)
    assert enhance(*places).enhanced == 4


def test_a_holder_of_another_machine_is_waited_for(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    records = open_store(places[1], settings).child("_mirnet")
    with Lease(Ledger(records), lease_s=60) as lease:
        mine = lease.entry
    assert mine.pid == os.getpid()
    for machine in ("another", ""):
        gone = replace(mine, pid=999_999_999, process="other", released=False, machine=machine)
        records.put("lease.json", json.dumps(asdict(gone)).encode())
        assert enhance(*places).held_by
    # of an older Mirnet
    old: dict[str, Any] = {"term": 9, "run_id": "r", "holder": "h", "lease_s": 60.0}
    records.put("lease.json", json.dumps(old).encode())
    assert LeaseEntry(**old).machine == ""
    assert enhance(*places).held_by
