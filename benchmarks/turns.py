"""Programs that take turns: while one works, the others stand still.

What else the machine does, and how fast it is at the moment, then touches all alike.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

Turns = list[tuple[float, float]]
_START_S = 600


def take_turns(
    programs: dict[str, tuple[Sequence[str], Path]], *, seconds: float, turn_s: float
) -> dict[str, Turns]:
    """Run programs, with all that they start, until ``seconds`` have passed, then end them.

    Each is first run alone until its file is there, which says that it has started up.

    Args:
        programs: name -> (command, file).

    Returns:
        name -> (begin, end) of its turns, as ``time.time()`` gives it.

    Raises:
        RuntimeError: a program ended by itself, or did not start up.
    """
    running: dict[str, psutil.Popen] = {}
    turns: dict[str, Turns] = {name: [] for name in programs}
    try:
        for name, (command, file) in programs.items():
            running[name] = psutil.Popen(command, stdout=subprocess.DEVNULL)
            _wait_for(file, running[name])
            _signal(running[name], signal.SIGSTOP)
        ending = time.time() + seconds
        while time.time() < ending:
            for name, program in running.items():
                begun = time.time()
                _signal(program, signal.SIGCONT)
                time.sleep(turn_s)
                _signal(program, signal.SIGSTOP)
                turns[name].append((begun, time.time()))
    finally:
        for program in running.values():
            _end(program)
    return turns


def working_s(turns: Turns, begin: float, end: float) -> float:
    """Seconds of the turns between two times."""
    return sum(max(0.0, min(end, b) - max(begin, a)) for a, b in turns)


def _wait_for(file: Path, program: psutil.Popen) -> None:
    deadline = time.time() + _START_S
    while not file.exists():
        if program.poll() is not None or time.time() > deadline:
            raise RuntimeError(f"{program.args}: did not start up (exit code {program.poll()})")
        time.sleep(0.1)


def _signal(program: psutil.Popen, number: int) -> None:
    if program.poll() is not None:
        raise RuntimeError(f"{program.args}: ended with {program.returncode}")
    for process in (program, *program.children(recursive=True)):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _end(program: psutil.Popen) -> None:
    if program.poll() is not None:
        return
    tree = program.children(recursive=True)
    for process in (program, *tree):
        try:
            process.send_signal(signal.SIGCONT)
        except psutil.NoSuchProcess:
            continue
    program.terminate()
    _, alive = psutil.wait_procs([program, *tree], timeout=60)
    for process in alive:
        process.kill()
