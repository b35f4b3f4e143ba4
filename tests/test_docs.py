"""Pages that are generated from code are up to date, and links between pages lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]


def test_generated_pages_are_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    assert len(made) == 7
    for path, make in made.items():
        page = (ROOT / "docs" / path).read_text(encoding="utf-8")
        assert page == make(), f"{path}: run python docs/generate.py"


def test_three_jobs_are_three_clicks_from_the_readme() -> None:
    """A click is a link; the README is where one starts."""
    jobs = {"guides/mlops-team.md", "guides/analyst.md", "guides/nightly.md", "tutorial.md"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {target.removeprefix("docs/") for target in re.findall(r"\]\(([^)#]+)", readme)}
    assert jobs <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
