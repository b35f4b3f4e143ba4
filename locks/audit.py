"""A bill of materials of the locks, checked for known faults: ``make sbom``.

Writes ``FOLDER/cpu.cdx.json`` and ``FOLDER/cuda.cdx.json`` (CycloneDX 1.6, every package with its
hashes), then asks the vulnerability service of pip-audit (PyPI's by default) about each version of
``cuda.lock``. A fault fails the check unless ``accepted-faults.txt`` has its ID, one per line with
the reason behind it. A service that cannot be reached, or knows none of the versions, is reported
and fails nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).parent
ACCEPTED = LOCKS / "accepted-faults.txt"


@dataclass(frozen=True)
class Verdict:
    """What the service said.

    Attributes:
        checked: number of packages that it knows.
        faults: ``package version: ID``, without those that are accepted.
    """

    checked: int
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        """For people."""
        if self.faults:
            return "known faults: " + "; ".join(self.faults)
        if not self.checked:
            return "not checked for known faults: no service that knows these versions was reached"
        return f"no known fault in {self.checked} packages"


def judge(report: dict[str, Any], accepted: set[str]) -> Verdict:
    """A JSON report of pip-audit, judged."""
    known = [entry for entry in report["dependencies"] if "skip_reason" not in entry]
    return Verdict(
        checked=len(known),
        faults=tuple(
            f"{entry['name']} {entry['version']}: {fault['id']}"
            for entry in known
            for fault in entry["vulns"]
            if not accepted & {fault["id"], *fault.get("aliases", ())}
        ),
    )


def accepted_faults(path: Path = ACCEPTED) -> set[str]:
    """The first word of each line that is no comment."""
    if not path.is_file():
        return set()
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}


def write_bills(folder: Path) -> None:
    """One document per lock, valid by the schema of CycloneDX."""
    folder.mkdir(parents=True, exist_ok=True)
    for lock in ("cpu", "cuda"):
        _run(
            *("cyclonedx-py", "requirements", f"--pyproject={LOCKS.parent / 'pyproject.toml'}"),
            *("--output-reproducible", "--validate", f"-o={folder / f'{lock}.cdx.json'}"),
            str(LOCKS / f"{lock}.lock"),
        ).check_returncode()


def ask(report: Path) -> dict[str, Any]:
    """The report of pip-audit; without packages if it reached no service."""
    report.unlink(missing_ok=True)
    done = _run(
        *("pip-audit", "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"),
        *(f"--output={report}", f"--requirement={LOCKS / 'cuda.lock'}"),
    )
    if not report.is_file():
        print(done.stderr.strip().splitlines()[-1:] or "pip-audit ended without a report")
        return {"dependencies": []}
    loaded: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return loaded


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).with_name(program)
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=False)


def main(folder: Path) -> int:
    """The exit code: 1 for a known fault."""
    write_bills(folder)
    verdict = judge(ask(folder / "audit.json"), accepted_faults())
    print(f"bills of materials: {folder}; {verdict.line}")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
