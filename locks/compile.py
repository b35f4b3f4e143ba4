"""Resolves pyproject.toml into the locks with uv: ``make lock``.

``cuda.lock``  all that a plain install and the extras need, with torch's default build
``cpu.lock``   the same versions without the CUDA packages, for torch's CPU build
``dev.lock``   what development needs besides

Versions that are locked stay; ``--upgrade`` takes the newest that pyproject.toml admits. Only
metadata are fetched. uv asks the default index, which has no CPU build of torch for Linux: the
hashes of that build are in ``torch-cpu.sha256``, as PyTorch publishes them, and join torch's line.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
DEV = "dev"
# what torch's default build for Linux adds to its CPU build
_CUDA = re.compile(r"(nvidia|cuda)-[a-z0-9-]+|triton")
_PIN = re.compile(r"^([a-z0-9.-]+)==([^ ;]+)", re.M)
_OPTIONS = (
    # one lock for the Pythons and systems that we support, with as few versions as can be
    *("--universal", "--fork-strategy=fewest", "--python-version=3.11"),
    *("--generate-hashes", "--no-annotate", "--custom-compile-command=make lock", "--quiet"),
)


def compile_locks(*more: str) -> None:
    """Write the three locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if name != DEV]
    runtime = [f"--extra={name}" for name in extras]
    cuda, cpu, dev = (LOCKS / f"{name}.lock" for name in ("cuda", "cpu", DEV))
    _resolve(cuda, *runtime, *more)
    pins = dict(_PIN.findall(cuda.read_text(encoding="utf-8")))
    left_out = LOCKS / ".cuda"
    left_out.write_text("\n".join(name for name in pins if _CUDA.fullmatch(name)), "utf-8")
    try:
        _resolve(cpu, *runtime, f"--constraints={cuda}", f"--excludes={left_out}")
    finally:
        left_out.unlink()
    beside = [f"--no-emit-package={name}" for name in pins]
    _resolve(dev, *runtime, f"--extra={DEV}", f"--constraints={cuda}", *beside, *more)
    for lock in (cuda, cpu):
        _admit_cpu_build(lock, pins["torch"])


def _resolve(lock: Path, *options: str) -> None:
    command = (
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        *_OPTIONS,
        *options,
        f"--output-file={lock}",
    )
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)


def _admit_cpu_build(lock: Path, version: str) -> None:
    """Add the hashes of torch's CPU build to those of its default build."""
    listed = (LOCKS / "torch-cpu.sha256").read_text(encoding="utf-8").split("\n")
    ours = {line.split()[0] for line in listed if f"torch-{version}+cpu-" in line}
    if not ours:
        sys.exit(f"torch-cpu.sha256 has no wheel of torch {version}: add those that PyTorch offers")
    text = lock.read_text(encoding="utf-8")
    head, start, rest = re.split(r"^(torch==[^\n]*\n)", text, maxsplit=1, flags=re.M)
    block = re.match(r"( +--hash=sha256:\w+( \\)?\n)+", rest)
    assert block is not None, "uv writes hashes"
    hashes = sorted(ours | set(re.findall(r"sha256:(\w+)", block[0])))
    lines = " \\\n".join(f"    --hash=sha256:{digest}" for digest in hashes)
    lock.write_text(head + start + lines + "\n" + rest[block.end() :], encoding="utf-8")


if __name__ == "__main__":
    compile_locks(*sys.argv[1:])
