from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mirnet.config import Settings
from mirnet.errors import ServiceError
from mirnet.liveness import this_process
from mirnet.params import Params
from mirnet.results import DataVersion
from mirnet.tracking import check_tracking, connect, track
from mirnet.tracking.outbox import Outbox
from mirnet.tracking.runs import TrackedRun, end_orphans

CHILD = """
import os, signal, sys
from pathlib import Path
from mirnet.config import Settings
from mirnet.tracking import track
with track(Settings(workspace=Path(sys.argv[1])), purpose="train", name="doomed"):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    signal.pause()
"""


def statuses(settings: Settings) -> list[str]:
    client = connect(settings)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return [run.info.status for run in client.search_runs(experiments)]


def die_in_a_run(settings: Settings, name: str) -> None:
    command = [sys.executable, "-c", CHILD, str(settings.workspace), name]
    done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert done.returncode != 0


def test_pages_never_show_a_password(tmp_path: Path) -> None:
    def at(uri: str) -> TrackedRun:
        return TrackedRun(Outbox(uri, tmp_path / "j"), run_id="r1", experiment_id="7")

    server = at("https://ann:secret@mlflow.example/")
    assert server.page == "https://mlflow.example/#/experiments/7/runs/r1"
    assert server.artifact_page("index.html") == f"{server.page}/artifacts/index.html"
    database = at("postgresql://ann:secret@db/mlflow")
    assert "r1" in database.page
    assert "secret" not in database.page
    assert database.artifact_page("index.html") is None


def test_a_run_has_params_data_and_metrics_that_point_to_the_data(
    store: Settings, version: DataVersion
) -> None:
    with track(store, purpose="train", name="first", tags={"mirnet.preset": "cpu"}) as run:
        run.log_params(Params())
        run.log_data(version, context="training", split="train")
        run.log_metrics({"val/psnr": 19.5}, step=3, data=version)
        run.log_table(pd.DataFrame({"psnr": [1.0, 2.0]}), "scores.json")
        run.log_image(np.zeros((8, 8, 3), np.uint8), "comparison")
    client = connect(store)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["train.lr"] == "0.0002"
    assert found.data.tags["mirnet.preset"] == "cpu"
    dataset = found.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("data", version.digest)
    assert len(dataset.digest) == 36
    assert found.data.metrics == {"val/psnr": 19.5}
    bound = client.search_runs([run.experiment_id], "dataset.digest = '" + version.digest + "'")
    assert [r.info.run_id for r in bound] == [run.run_id]
    names = {a.path for a in client.list_artifacts(run.run_id)}
    assert {"scores.json", "images"} <= names
    location = client.get_experiment(run.experiment_id).artifact_location
    assert Path(location.removeprefix("file://")).is_relative_to(store.workspace.resolve())


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_with_its_block(
    store: Settings, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), track(store, purpose="train", name="broken"):
        raise error
    assert statuses(store) == [status]


def test_the_same_key_goes_on_with_the_same_run(store: Settings, version: DataVersion) -> None:
    with pytest.raises(ValueError), track(store, purpose="train", name="a", key="it's a") as first:
        first.log_params(Params())
        first.log_data(version, context="training")
        raise ValueError
    with track(store, purpose="train", name="a", key="it's a") as second:
        second.log_params(Params())
        second.log_data(version, context="training")
    assert second.run_id == first.run_id
    assert statuses(store) == ["FINISHED"]
    with track(store, purpose="train", name="a", key="another"):
        pass
    assert len(statuses(store)) == 2
    assert len(connect(store).get_run(first.run_id).inputs.dataset_inputs) == 1


def test_sigterm_ends_the_run(store: Settings) -> None:
    before = signal.getsignal(signal.SIGTERM)
    die_in_a_run(store, "SIGTERM")
    assert statuses(store) == ["KILLED"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_left_by_a_killed_process_is_ended_by_the_next(store: Settings) -> None:
    die_in_a_run(store, "SIGKILL")
    assert statuses(store) == ["RUNNING"]
    with track(store, purpose="train", name="next"):
        assert sorted(statuses(store)) == ["KILLED", "RUNNING"]


def test_a_run_of_another_host_is_left_once_it_was_silent_for_a_day(
    store: Settings,
) -> None:
    """As a pod that was evicted: nobody can ask its host."""
    client = connect(store)
    with track(store, purpose="train", name="here") as here:
        day = 24 * 3600 * 1000
        now = int(time.time() * 1000)
        tags = {"mirnet.host": "elsewhere", "mirnet.pid": "1"}
        ages = {"silent": (3 * day, 2 * day), "talking": (3 * day, 1000), "young": (1000, None)}
        for name, (began, last) in ages.items():
            run = client.create_run(
                here.experiment_id, start_time=now - began, tags=tags, run_name=name
            )
            if last is not None:
                client.log_metric(run.info.run_id, "train/loss", 0.5, timestamp=now - last)
        assert end_orphans(client, here.experiment_id) == 1
    found = {r.info.run_name: r.info.status for r in client.search_runs([here.experiment_id])}
    assert found == {
        "here": "FINISHED",
        "silent": "KILLED",
        "talking": "RUNNING",
        "young": "RUNNING",
    }


def test_a_run_of_another_container_with_our_host_name_is_left_alone(store: Settings) -> None:
    """Its PID says nothing here: it may be free, or that of another process."""
    client = connect(store)
    with track(store, purpose="train", name="here") as here:
        theirs = replace(this_process(), machine="boot pid:[1]", pid=999_999_999)
        tags = {"mirnet.host": socket.gethostname(), "mirnet.pid": str(theirs.pid)}
        for process in ({"mirnet.process": str(theirs)}, {}):  # of this version, of an older one
            client.create_run(here.experiment_id, tags=tags | process, run_name="theirs")
        assert end_orphans(client, here.experiment_id) == 0


def test_runs_of_living_processes_are_left_alone(store: Settings) -> None:
    with track(store, purpose="train", name="ours"), track(store, purpose="train", name="too"):
        assert statuses(store) == ["RUNNING", "RUNNING"]


def test_an_address_where_nothing_listens_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://someone:secret@127.0.0.1:{port}"
    with pytest.raises(ServiceError, match=f"127.0.0.1:{port} cannot be reached") as caught:
        check_tracking(Settings(workspace=tmp_path, tracking_uri=uri))
    assert "secret" not in str(caught.value)
    assert caught.value.transient


def test_a_server_that_refuses_is_one_clear_line(tmp_path: Path) -> None:
    """A server whose --allowed-hosts lack us says 200 on /health and 403 on everything else."""

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b"Invalid Host header - possible DNS rebinding attack detected")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ServiceError, match="Invalid Host header") as caught:
            check_tracking(Settings(workspace=tmp_path, tracking_uri=uri))
        server.shutdown()
    assert uri in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="paths")
def test_a_place_where_no_store_can_be_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(ServiceError, match="cannot create"):
        check_tracking(Settings(workspace=file / "workspace"))
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(ServiceError, match=r"mlflow\.db"):
        check_tracking(Settings(workspace=tmp_path))
