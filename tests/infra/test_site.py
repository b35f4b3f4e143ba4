"""The site builds from docs/, every page is in its menu, and it fetches nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    # strict: a broken link, a page outside the menu or an entry without a page is an error;
    # `--quiet` would also silence what strictness counts
    assert built.returncode == 0, built.stderr
    return target


def test_every_page_is_built_and_in_the_menu(root: Path, site: Path) -> None:
    pages = {p.relative_to(root / "docs").with_suffix(".html") for p in root.glob("docs/**/*.md")}
    assert len(pages) >= 13
    for page in pages:
        assert (site / page).is_file(), page
    menu = (root / "mkdocs.yml").read_text(encoding="utf-8")
    for page in pages:
        assert str(page.with_suffix(".md")) in menu


def test_it_has_a_start_page(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorial.html"' in start and 'src="images/result.jpg"' in start
    assert (site / "images" / "result.jpg").is_file()


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', text)
        assert not [url for url in loaded if "canonical" not in url], page.name
