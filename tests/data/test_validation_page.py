"""The page of a validation: flagged pairs as images, offline, whatever files are called."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mirnet.config import Settings
from mirnet.data import validation_page
from mirnet.data.checks import checks
from mirnet.data.layout import SIDES
from mirnet.data.validation import validate_data
from mirnet.data.validation_page import MAX_LISTED, render_validation
from mirnet.params import ValidateParams
from mirnet.results import DataVersion, Finding, ValidationResult
from tests.browser import LOCAL, complaints, fetched, open_browser

ONE, COPY = "our485/astronaut-01.png", "our485/<img src=x onerror=alert(1)>.png"

REPEATED = "the low has the same content as that of "


@pytest.fixture
def spoiled(dataset: Path) -> Path:
    """One pair without its reference, one twice under a hostile name, and a stray file."""
    for side in SIDES:
        shutil.copy(dataset / "our485" / side / "rocket-01.png", dataset / "our485" / side / "x")
        (dataset / "our485" / side / "x").rename(dataset / "our485" / side / COPY[7:])
    (dataset / "our485/high/astronaut-01.png").unlink()
    (dataset / "our485/low/<b>.txt").write_text("x")
    return dataset


def test_it_shows_the_flagged_pairs_offline(
    spoiled: Path, settings: Settings, tmp_path: Path
) -> None:
    result = validate_data(
        spoiled, ValidateParams(), reports_dir=settings.reports_dir, settings=settings
    )
    assert result.docs_path is not None
    with open_browser(tmp_path / "profile", width=1280) as browser:
        fetched(browser)
        browser.get(Path(result.docs_path).as_uri())
        assert browser.title == "Data blocked: 16 pairs, 1 critical, 2 warnings"
        missing, stray, doubled = (
            one.text.split("\n") for one in browser.find_elements("css selector", ".pair")
        )
        assert missing[0] == ONE
        assert missing[-2:] == ["critical missing-high", "high/astronaut-01.png is missing"]
        assert missing[1:5] == ["low", "low, brightened", "no image", "high"]
        assert doubled[0] == "our485/rocket-01.png"
        assert doubled.count("low") == doubled.count("high") == 2, "it, and the pair it repeats"
        reason, repeated = (doubled.index(text) for text in (f"{REPEATED}{COPY}", COPY))
        assert reason < repeated, "beside the pair itself"
        assert stray == ["our485/low/<b>.txt", "warning stray", "the file does not belong here"]
        shown = "return [...document.images].filter(i => i.naturalWidth > 0).length"
        assert browser.execute_script(shown) == 2 + 6
        assert complaints(browser) == []
        assert [url for url in fetched(browser) if not url.startswith(LOCAL)] == []


def page_of(root: Path, findings: Sequence[Finding], target: Path) -> str:
    """The page of these findings; all pairs are the same two files."""
    result = ValidationResult(
        version=DataVersion(path=str(root), digest="d4.dir", status="clean", num_files=0, size=0),
        num_pairs={"our485": 12},
        findings=tuple(findings),
        passed=not findings,
    )
    files = {side: f"our485/{side}/rocket-01.png" for side in SIDES}
    manifest = pd.DataFrame([{"pair": f.pair, "kind": "pair"} | files for f in findings])
    render_validation(
        target,
        result,
        root=root,
        manifest=manifest if findings else pd.DataFrame(columns=["pair", "kind", *SIDES]),
        suite=checks(ValidateParams()),
    )
    return target.read_text(encoding="utf-8")


def test_number_and_size_of_the_images_are_bounded(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_page, "MAX_PAIRS", 3)
    for side in SIDES:
        path = dataset / "our485" / side / "rocket-01.png"
        Image.open(path).resize((1200, 300)).save(path)
    pairs = [f"our485/{number:03}.png" for number in range(MAX_LISTED + 2)]
    findings = [
        Finding(check="saturated", severity="warning", pair=pair, message=f"{pair}: white")
        for pair in pairs
    ]
    text = page_of(dataset, findings, tmp_path / "page.html")
    assert text.count("<img ") == 3 * 3
    largest = max(map(len, re.findall(r'src="(data:[^"]*)"', text)))
    assert largest < 20_000, "small images, whatever the size of the pair"
    assert f"{pairs[3]}: white" in text, "named, if not shown"
    assert "2 more findings are in validate.json" in text


def test_good_data_have_a_page_too(dataset: Path, tmp_path: Path) -> None:
    text = page_of(dataset, [], tmp_path / "page.html")
    assert "Data passed: 12 pairs, no findings" in text
    assert "No single pair was flagged" in text
    listed = re.findall(r"<tr><td>([\w-]+)</td>", text)
    assert listed == [check.name for check in checks(ValidateParams())]
