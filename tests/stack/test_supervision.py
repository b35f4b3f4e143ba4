"""The supervisor with small processes of our own: start, kill, hang, order, and what it leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mirnet.cli import main, stack as stack_commands
from mirnet.errors import ServiceError, UsageError
from mirnet.stack import control, supervisor
from mirnet.stack.plan import StackPaths, is_free, load_plan, make_plan, write_private
from mirnet.stack.processes import MARKER, end, of_session, of_stack
from mirnet.stack.services import Service
from mirnet.stack.state import StackState, StatusBoard, held, read_state, supervisor_runs

# writes "up" when it runs, has a child that would outlive it, and ends on SIGTERM
SERVER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> StackPaths:
    found = StackPaths(tmp_path / "home")
    found.logs.mkdir(parents=True)
    return found


def server(
    home: StackPaths, name: str, *, after: tuple[str, ...] = (), order: list[str]
) -> Service:
    sign = home.root / name

    def setup() -> None:
        order.append(name)

    return Service(
        name=name,
        argv=(sys.executable, "-c", SERVER, str(sign)),
        env=dict(os.environ),
        probe=lambda: None if sign.is_file() else "not yet",
        setup=setup,
        after=after,
    )


class Running:
    """A supervisor in a thread."""

    def __init__(self, home: StackPaths, found: list[Service]) -> None:
        self.home = home
        self.asked = threading.Event()
        self.thread = threading.Thread(
            target=supervisor.supervise, args=(home, found, "test-stack", self.asked)
        )
        self.thread.start()

    def wait(self, condition: Callable[[StackState], bool], *, timeout_s: float = 60) -> StackState:
        deadline = time.monotonic() + timeout_s
        while True:
            state = read_state(self.home)
            if condition(state):
                return state
            assert time.monotonic() < deadline, state
            time.sleep(0.1)

    def stop(self) -> None:
        self.asked.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def run() -> Iterator[Callable[[StackPaths, list[Service]], Running]]:
    started: list[Running] = []

    def start(home: StackPaths, found: list[Service]) -> Running:
        started.append(Running(home, found))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_services_wait_for_each_other_and_end_with_their_children(
    home: StackPaths, run: Callable[[StackPaths, list[Service]], Running]
) -> None:
    order: list[str] = []
    found = [
        server(home, "second", after=("first",), order=order),
        server(home, "first", order=order),
    ]
    running = run(home, found)
    state = running.wait(lambda s: s.healthy)
    assert order == ["first", "second"]
    children = [int((home.root / name).read_text()) for name in ("first", "second")]
    leaders = [s.pid for s in state.services.values()]
    running.stop()
    assert not [pid for pid in (*children, *leaders) if pid and alive(pid)]
    assert {s.phase for s in read_state(home).services.values()} == {"stopped"}


def test_a_killed_service_starts_again_without_its_old_children(
    home: StackPaths, run: Callable[[StackPaths, list[Service]], Running]
) -> None:
    running = run(home, [server(home, "one", order=[])])
    before = running.wait(lambda s: s.healthy).services["one"].pid
    assert before is not None
    child = int((home.root / "one").read_text())
    os.kill(before, signal.SIGKILL)
    after = running.wait(lambda s: s.healthy and s.services["one"].pid != before).services["one"]
    assert after.restarts == 1
    assert not alive(child)


def test_a_hung_service_starts_again(
    home: StackPaths,
    run: Callable[[StackPaths, list[Service]], Running],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "START_S", 0.5)
    stuck = Service(
        name="stuck",
        argv=(sys.executable, "-c", "import time; time.sleep(600)"),
        env=dict(os.environ),
        probe=lambda: "no answer",
    )
    running = run(home, [stuck])
    state = running.wait(lambda s: bool(s.services) and s.services["stuck"].restarts >= 1)
    assert state.services["stuck"].phase in ("restarting", "starting")


def test_a_program_that_cannot_start_is_said_by_name(
    home: StackPaths, run: Callable[[StackPaths, list[Service]], Running]
) -> None:
    missing = Service(name="gone", argv=("/nowhere/program",), env={}, probe=lambda: None)
    running = run(home, [missing])
    state = running.wait(lambda s: bool(s.services) and s.services["gone"].phase == "restarting")
    assert "/nowhere/program" in state.services["gone"].message


def test_setup_that_fails_keeps_a_service_from_being_healthy(
    home: StackPaths, run: Callable[[StackPaths, list[Service]], Running]
) -> None:
    def refuse() -> None:
        raise ServiceError("no bucket yet")

    service = Service(
        name="store",
        argv=(sys.executable, "-c", "import time; time.sleep(600)"),
        env=dict(os.environ),
        probe=lambda: None,
        setup=refuse,
    )
    running = run(home, [service])
    state = running.wait(
        lambda s: bool(s.services) and s.services["store"].message == "no bucket yet"
    )
    assert state.services["store"].phase == "starting"


def test_processes_that_moved_to_their_own_session_are_found_by_the_marker() -> None:
    child = psutil.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=os.environ | {MARKER: "lost-stack"},
        start_new_session=True,
    )
    try:
        found = of_stack("lost-stack")
        assert [p.pid for p in found] == [child.pid]
        assert of_stack("another-stack") == []
        assert [p.pid for p in of_session(child.pid)] == [child.pid]
    finally:
        end([psutil.Process(child.pid)], grace_s=5)
    assert not alive(child.pid)


def test_a_foreign_session_with_a_used_number_is_left_alone() -> None:
    ours = os.getsid(0)
    assert of_stack("lost-stack", sessions=[ours]) == []


def test_ports_and_secrets_stay_and_a_taken_port_is_replaced(tmp_path: Path) -> None:
    home = StackPaths(tmp_path / "home")
    first = make_plan(home, project=tmp_path, database="sqlite")
    secrets = load_plan(home)[1]
    assert len(set(first.ports.values())) == len(first.ports)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first.ports["filer"]))
        taken.listen()
        assert not is_free(first.ports["filer"])
        second = make_plan(home, project=tmp_path, database="postgres")
    assert second.ports["filer"] != first.ports["filer"]
    changed = {name for name in first.ports if first.ports[name] != second.ports[name]}
    assert changed == {"filer"}
    assert second.database == "sqlite", "the data are there"
    assert load_plan(home)[1] == secrets
    second.run_dir.rmdir()


def test_secrets_are_private_distinct_and_refused_when_open(tmp_path: Path) -> None:
    home = StackPaths(tmp_path / "home")
    plan = make_plan(home, project=tmp_path, database="sqlite")
    plan.run_dir.rmdir()
    assert home.secrets.stat().st_mode & 0o777 == 0o600
    values = list(load_plan(home)[1].model_dump().values())
    assert len(set(values)) == len(values)
    assert not any(value in home.plan.read_text() for value in values)
    assert not any(value in f"{load_plan(home)[1]!r}{load_plan(home)[1]}" for value in values)
    home.secrets.chmod(0o640)
    with pytest.raises(UsageError, match=r"mode 640.*chmod 600"):
        load_plan(home)


def test_secrets_do_not_show_in_the_repr_of_a_service(tmp_path: Path) -> None:
    service = Service(name="x", argv=("y",), probe=lambda: None, env={"PASSWORD": "s3cret"})
    assert "s3cret" not in repr(service)


def test_a_folder_without_a_stack_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run `mirnet stack up` first"):
        load_plan(StackPaths(tmp_path))
    with pytest.raises(ServiceError, match=f"no stack in {tmp_path}"):
        control.down(StackPaths(tmp_path))
    assert control.status(StackPaths(tmp_path)) == StackState()


def test_down_finds_the_stack_of_the_shell_and_says_what_it_did(
    home: StackPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_plan(home, project=home.root, database="sqlite")
    # the shell of `eval "$(mirnet stack env)"`, in another folder
    for name, value in control.environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    stack_commands.down()
    said = f"{home.root}: nothing was running; data kept (--purge removes them)\n"
    assert capsys.readouterr().out == said
    stack_commands.down(purge=True)
    assert not home.root.exists()


@pytest.mark.parametrize("known", [True, False])
def test_down_says_what_it_ended_without_a_supervisor(
    known: bool, home: StackPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a killed supervisor, whose service was still starting."""
    plan = make_plan(home, project=home.root, database="sqlite")
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    with subprocess.Popen(
        command,
        env=os.environ | {MARKER: plan.stack_id},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as left:
        assert left.stdout is not None and left.stdout.readline() == b"1\n"
        if known:
            # a process id that is nobody's
            board = StatusBoard(home, 2**30, {"mlflow": "", "ray-head": ""})
            board.set("mlflow", "starting", pid=left.pid)
        stack_commands.down(home.root)
        assert not psutil.pid_exists(left.pid)
    what = "mlflow" if known else f"process {left.pid}"
    assert f"{home.root}: stopped {what}; data kept" in capsys.readouterr().out


def test_down_without_a_stack_is_one_line_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # the workspace says where runs keep their files, not where the stack is
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(sys, "argv", ["mirnet", "stack", "down"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"no stack in {tmp_path / '.mirnet/stack'}" in error


def test_only_one_supervisor_holds_the_stack(home: StackPaths) -> None:
    assert not supervisor_runs(home)
    with held(home.running, wait=False) as ours:
        assert ours
        assert supervisor_runs(home)
    assert not supervisor_runs(home)


def test_status_without_a_supervisor_is_stopped(home: StackPaths) -> None:
    board = StatusBoard(home, 1, {"one": "http://127.0.0.1:1"})
    board.set("one", "healthy", pid=12345)
    state = control.status(home)
    assert not state.healthy
    assert state.services["one"].phase == "stopped"
    assert state.services["one"].pid is None


def test_the_end_of_a_log_and_the_names_of_logs(home: StackPaths) -> None:
    write_private(home.logs / "one.log", "\n".join(f"line {i}" for i in range(5000)))
    assert control.last_lines(control.log_path(home, "one"), 2) == ["line 4998", "line 4999"]
    with pytest.raises(UsageError, match="there are: one"):
        control.log_path(home, "two")
