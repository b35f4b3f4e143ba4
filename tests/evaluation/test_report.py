from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mirnet.evaluation.baselines import BASELINES
from mirnet.evaluation.gate import Decision, GateCheck
from mirnet.evaluation.report import MAX_IMAGES, Page, add_decision, render_report
from mirnet.evaluation.scoring import add_gains, score_pairs
from mirnet.params import EvaluateParams
from mirnet.results import EpochMetrics
from tests.evaluation.images import dark_pairs

FAST = EvaluateParams(bootstrap_samples=200)
HISTORY = tuple(
    EpochMetrics(
        epoch=n,
        step=n,
        lr=1e-3,
        train_loss=1 / n,
        train_psnr=10 + n,
        val_loss=2 / n,
        val_psnr=9 + n,
    )
    for n in (1, 2, 3)
)


class Elements(HTMLParser):
    """Tags with attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def make_page(target: Path, number: int, *, page: Page | None = None) -> str:
    outputs: dict[tuple[str, str], NDArray[np.uint8]] = {}
    pairs = dark_pairs(number)
    methods = {n: BASELINES[n] for n in ("input", "autocontrast")} | {"mirnet": BASELINES["gamma"]}
    scores, summary = score_pairs(pairs, methods, FAST, outputs=outputs)
    summary = add_gains(scores, summary, "mirnet", FAST)
    render_report(
        target,
        page or Page("MIRNet", "mirnet", history=HISTORY),
        scores=scores,
        summary=summary,
        pairs=pairs,
        outputs=outputs,
    )
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    decision = Decision("refuse", (GateCheck("baseline", False, "does not surely beat <b>it</b>"),))
    facts = {"data": "d48f.dir", "model": "<script>alert(1)</script>"}
    page = Page("MIRNet & friends", "mirnet", facts, HISTORY, decision)
    return make_page(tmp_path_factory.mktemp("report") / "a" / "index.html", 5, page=page)


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    for _, attributes in Elements(html).found:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), f"{name}={value[:60]}"
    assert "@import" not in html and not re.search(r"url\((?!['\"]?(#|data:))", html)
    assert "default-src 'none'" in html


def test_pictures_are_there_without_javascript(html: str) -> None:
    images = Elements(html).all("img")
    assert len(images) == 5 * 4
    names = [image["data-name"] for image in images[:4]]
    assert names == ["dark input", "autocontrast", "enhanced", "reference"]
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in images)
    assert all(image["alt"] for image in images)
    text = Elements(html).text
    assert all(f"{rank}: eval15/" in text for rank in ("best", "median", "worst"))


def test_images_come_before_numbers_and_have_their_own_size(html: str) -> None:
    first_image, first_table = html.index("<img"), html.index("<table")
    assert first_image < first_table < html.index("<svg")
    assert html.index("<h1>") < first_image < html.index('id="summary"')
    uri = str(Elements(html).all("img")[0]["src"])
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    low = dark_pairs(5)[0][1]
    assert picture.size == (low.shape[1], low.shape[0])
    assert f"{low.shape[1]}x{low.shape[0]} pixels" in Elements(html).text


def test_figures_tables_and_verdict(html: str) -> None:
    page = Elements(html)
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert len(labels) == 5
    assert any(label.startswith("loss over epochs: training, validation") for label in labels)
    assert any(label.startswith("PSNR, dB over epochs") for label in labels)
    assert "Refused" in page.text and "does not surely beat <b>it</b>" in page.text
    for defect in ("Clipping", "Colour cast", "Halo", "Residual noise"):
        assert defect in page.text
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids)), "ids of several figures collide"


def test_the_parts_of_the_error_by_darkness(tmp_path: Path) -> None:
    html = make_page(tmp_path / "index.html", 6)
    table = html[html.index('id="anatomy"') :].partition("</table>")[0]
    rows = re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", table)
    named = {name: re.findall(r"<td>(\d+)( %)?</td>", cells) for name, cells in rows}
    thirds = [f"mirnet, {name} third" for name in ("darkest", "middle", "brightest")]
    assert list(named) == ["mirnet", *thirds, "autocontrast"]
    for name, cells in named.items():
        assert int(cells[0][0]) == (2 if name in thirds else 6)
        assert abs(sum(int(value) for value, share in cells if share) - 100) <= 2


def test_text_from_outside_is_escaped(html: str) -> None:
    assert "<script>alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "MIRNet &amp; friends" in html


def test_anchors_lead_to_pictures(html: str) -> None:
    page = Elements(html)
    ids = {attributes.get("id") for attributes in page.all("section")}
    links = [link["href"] for link in page.all("a")]
    assert links and all(link and link[1:] in ids for link in links)


def test_the_decision_comes_later_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "index.html"
    before = make_page(target, 2, page=Page("MIRNet", "mirnet", run_id="abc"))
    assert 'id="verdict"' not in before
    waits = Decision("promote", (GateCheck("baseline", True, "beats <b>autocontrast</b>"),))
    assert add_decision(target, "abc", waits, outcome="waits for a person")
    refused = Decision("refuse", (*waits.checks, GateCheck("approval", False, "refused by Ada")))
    assert add_decision(target, "abc", refused, outcome="stays without an alias")
    html = target.read_text(encoding="utf-8")
    text = Elements(html).text
    assert html.count('id="verdict"') == 1 and "waits for a person" not in text
    assert "Refused: stays without an alias" in text
    assert "passed, baseline: beats <b>autocontrast</b>" in text
    assert "FAILED, approval: refused by Ada" in text
    begin, end = html.index('<div class="verdict'), html.index("<!--end of verdict")
    assert html[:begin] + html[end:] == before, "nothing else changes"


def test_a_page_of_another_run_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "index.html"
    before = make_page(target, 1, page=Page("MIRNet", "mirnet", run_id="abc"))
    decision = Decision("keep", (GateCheck("same-weights", False, "the champion already"),))
    assert not add_decision(target, "abcd", decision, outcome="is champion")
    assert not add_decision(tmp_path / "none.html", "abc", decision, outcome="is champion")
    assert target.read_text(encoding="utf-8") == before


def test_many_pairs_show_a_choice_over_the_ranks(tmp_path: Path) -> None:
    html = make_page(tmp_path / "index.html", MAX_IMAGES + 5, page=Page("Many", "mirnet"))
    page = Elements(html)
    assert len(page.all("section")) == MAX_IMAGES
    assert f"{MAX_IMAGES} of {MAX_IMAGES + 5} pairs" in page.text
    assert len(page.all("svg")) == 3, "no training, no curves"
    assert list(tmp_path.iterdir()) == [tmp_path / "index.html"], "nothing half-written beside it"


def test_one_pair_and_no_baseline(tmp_path: Path) -> None:
    outputs: dict[tuple[str, str], NDArray[np.uint8]] = {}
    pairs = dark_pairs(1)
    scores, summary = score_pairs(pairs, {"gamma": BASELINES["gamma"]}, FAST, outputs=outputs)
    render_report(
        tmp_path / "one.html",
        Page("One", "gamma"),
        scores=scores,
        summary=summary,
        pairs=pairs,
        outputs=outputs,
    )
    page = Elements((tmp_path / "one.html").read_text(encoding="utf-8"))
    assert [image["data-name"] for image in page.all("img")] == [
        "dark input",
        "enhanced",
        "reference",
    ]
    assert "best: eval15/0.png" in page.text
