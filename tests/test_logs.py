"""Log lines carry the ids of their run; JSON stays one line per entry whatever a message holds."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mirnet.logs import JsonLines, bind, bound


def entry(message: str = "x", **attributes: object) -> dict[str, Any]:
    record = logging.LogRecord("mirnet.batch", logging.WARNING, __file__, 1, message, (), None)
    record.__dict__.update(attributes)
    line = JsonLines().format(record)
    assert "\n" not in line
    loaded: dict[str, Any] = json.loads(line)
    return loaded


def test_ids_hold_for_a_block_and_for_its_threads() -> None:
    assert "mlflow_run_id" not in entry()
    with bound(mlflow_run_id="outer", batch_run_id=None):
        with bound(mlflow_run_id="inner"), ThreadPoolExecutor(1) as pool:
            assert pool.submit(entry).result()["mlflow_run_id"] == "inner"
        assert entry()["mlflow_run_id"] == "outer"
        assert "batch_run_id" not in entry()
    assert "mlflow_run_id" not in entry()


def test_an_id_that_is_bound_can_be_taken_away() -> None:
    bind(flow_run_id="abc")
    assert entry()["flow_run_id"] == "abc"
    bind(flow_run_id=None)
    assert "flow_run_id" not in entry()


def test_what_prefect_attaches_wins_and_its_absence_shows_nothing() -> None:
    with bound(flow_run_id="ours"):
        found = entry(flow_run_id="theirs", task_run_id=None, flow_name="retrain")
    assert found["flow_run_id"] == "theirs"
    assert found["flow_name"] == "retrain"
    assert "task_run_id" not in found


def test_a_file_name_with_a_line_break_forges_no_entry() -> None:
    assert entry('a\n{"level": "ERROR"}')["message"] == 'a\n{"level": "ERROR"}'


def test_an_error_has_its_traceback_in_the_same_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        found = entry(exc_info=sys.exc_info())
    assert found["error"] == "ValueError: broken"
    assert "test_logs.py" in found["traceback"]


def test_the_command_line_writes_json_where_asked() -> None:
    code = (
        "import logging\n"
        "from mirnet import cli\n"
        "cli._root(verbose=True)\n"
        "logging.getLogger('mirnet.test').info('said')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MIRNET_LOG_FORMAT": "json"},
    )
    assert json.loads(done.stderr)["message"] == "said"
