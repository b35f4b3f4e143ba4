"""What the check for known faults says of a report of pip-audit."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

AUDIT = runpy.run_path(str(Path(__file__).parents[2] / "locks" / "audit.py"))


def report(*vulns: dict[str, object], skipped: bool = False) -> dict[str, Any]:
    entry: dict[str, object] = {"name": "pillow", "version": "1.0"}
    entry |= {"skip_reason": "not found"} if skipped else {"vulns": list(vulns)}
    return {"dependencies": [entry]}


def test_a_fault_is_named_until_it_is_accepted() -> None:
    found = report({"id": "PYSEC-1", "aliases": ["CVE-1"]})
    assert AUDIT["judge"](found, set()).line == "known faults: pillow 1.0: PYSEC-1"
    assert AUDIT["judge"](found, {"CVE-1"}).line == "no known fault in 1 packages"


def test_packages_that_the_service_does_not_know_are_not_called_sound() -> None:
    verdict = AUDIT["judge"](report(skipped=True), set())
    assert not verdict.faults
    assert "not checked" in verdict.line


def test_accepted_faults_have_a_reason_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "accepted.txt"
    path.write_text("# comment\n\nCVE-1 only on Windows\n")
    assert AUDIT["accepted_faults"](path) == {"CVE-1"}
    assert AUDIT["accepted_faults"](tmp_path / "none") == set()
