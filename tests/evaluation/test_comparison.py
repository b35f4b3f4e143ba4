from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.by import By

from mirnet.errors import DataError
from mirnet.evaluation import charts
from mirnet.evaluation.baselines import BASELINES
from mirnet.evaluation.comparison import Comparison, compare
from mirnet.evaluation.comparison_page import (
    ComparedPair,
    ComparisonPage,
    Differs,
    render_comparison,
    verdict,
)
from mirnet.evaluation.scoring import score_pairs
from mirnet.evaluation.statistics import paired_gain
from mirnet.params import EvaluateParams
from tests.browser import LOCAL, complaints, fetched, open_browser
from tests.evaluation.images import dark_pairs
from tests.evaluation.test_report import Elements

FAST = EvaluateParams(bootstrap_samples=200)


def scores(psnr: list[float], **columns: list[float]) -> pd.DataFrame:
    number = len(psnr)
    given = {
        "pair_id": [f"eval15/{n}.png" for n in range(number)],
        "psnr": psnr,
        "ssim": [0.5] * number,
        "low_luma": [float(n) for n in range(number)],
        "luma": [100.0] * number,
        "luma_ratio": [1.0] * number,
        "width": [600] * number,
        "height": [400] * number,
    }
    return pd.DataFrame(given | columns)


def difference(found: Comparison, column: str):
    return next(d for d in found.metrics if d.metric.column == column)


def test_differences_are_paired_and_their_direction_is_that_of_the_metric() -> None:
    first = scores([20, 21, 22, 23, 24, 25], ciede2000=[9, 8, 9, 8, 9, 8])
    second = scores([19, 20, 21, 22, 23, 26], ciede2000=[7, 7, 7, 7, 7, 7.5])
    # rows in another order are the same images
    found = compare(first, second.iloc[::-1], FAST)
    assert found.psnr.difference.mean == pytest.approx((5 * 1 - 1) / 6)
    assert (found.psnr.first_better, found.psnr.second_better) == (5, 1)
    colour = difference(found, "ciede2000")
    assert colour.difference.mean == pytest.approx(8.5 - 7.0833, abs=1e-3)
    assert colour.winner == 1, "lower is better"
    assert difference(found, "ssim").winner is None, "no difference at all"
    table = found.images
    assert table["pair_id"].iloc[-1] == "eval15/5.png" and table["difference"].iloc[-1] == -1


def test_the_interval_is_that_of_the_gate() -> None:
    pairs = dark_pairs(6)
    methods = {name: BASELINES[name] for name in ("gamma", "autocontrast")}
    both, _ = score_pairs(pairs, methods, FAST)
    one, other = (both[both["method"] == name] for name in methods)
    gain = paired_gain(both, "gamma", "autocontrast", num_samples=200, seed=FAST.seed)
    assert compare(one, other, FAST).psnr.difference == gain


def test_groups_by_brightness_and_size_without_interval_if_small() -> None:
    sizes = [600.0] * 6 + [320.0] * 6
    first = scores([20.0 + n for n in range(12)], width=sizes)
    second = scores([20.0] * 12, width=sizes)
    slices = {f"{s.group} {s.name}": s.psnr for s in compare(first, second, FAST).slices}
    assert list(slices) == [
        "dark image darkest third, mean brightness 0 to 3 of 255",
        "dark image middle third, mean brightness 4 to 7 of 255",
        "dark image brightest third, mean brightness 8 to 11 of 255",
        "size 600x400",
        "size 320x400",
    ], "all references have one brightness, so they make no groups"
    means = [s.difference.mean for s in slices.values()]
    assert means == pytest.approx([1.5, 5.5, 9.5, 2.5, 8.5])
    assert slices["size 320x400"].winner == 0
    assert slices["dark image brightest third, mean brightness 8 to 11 of 255"].winner is None


def test_a_black_output_tells_nothing_of_its_reference() -> None:
    """0 / 0: of a model that diverged."""
    black = scores([5.0 + n for n in range(12)], luma=[0.0] + [100.0 + n for n in range(11)])
    black["luma_ratio"] = [0.0] + [1.0] * 11
    found = compare(black, scores([20.0] * 12), FAST)
    thirds = [s for s in found.slices if s.group == "reference"]
    assert [s.psnr.difference.num_images for s in thirds] == [4, 4, 3]
    assert thirds[0].name == "darkest third, mean brightness 100 to 103 of 255"


def test_names_with_dollars_and_control_characters_are_text() -> None:
    svg = charts.differences([1.0, -1.0], label="PSNR of $x^{$ minus \x1b[31m b")
    assert "\x1b" not in svg and "$x^{$" in svg
    assert "$y_" in charts.score_strips({"$y_": [1.0, 2.0]}, label="PSNR")


def test_images_to_look_at_come_once_with_all_their_reasons() -> None:
    first = scores([10.0, 20, 20, 20, 20, 20, 20, 20])
    second = scores([15.0, 20, 19, 18, 17, 16, 25, 20])
    picks = compare(first, second, FAST).picks()
    assert list(picks)[:3] == ["eval15/5.png", "eval15/4.png", "eval15/3.png"]
    assert picks["eval15/0.png"] == (
        "{1} gains most",
        "lowest PSNR of {0}",
        "lowest PSNR of {1}",
    )
    assert picks["eval15/6.png"] == ("{1} gains most",)
    assert "eval15/7.png" not in picks, "no difference, and not the worst"


def test_what_cannot_be_compared_is_refused_or_said() -> None:
    one = scores([20.0, 21, 22, 23, 24])
    with pytest.raises(DataError, match=r"same images: eval15/4\.png"):
        compare(one, scores([20.0, 21, 22, 23]), FAST)
    few = compare(scores([20.0, 21]), scores([10.0, 11]), FAST)
    assert few.psnr.winner is None
    assert "2 images are too few" in verdict("a", "b", few.psnr)
    same = compare(one, one, FAST)
    assert not same.picks().keys() - {"eval15/0.png", "eval15/1.png"}
    assert "No difference shown" in verdict("a", "b", same.psnr)
    clear = compare(one, one.assign(psnr=one["psnr"] + [1, 2, 1, 2, 1]), FAST)
    assert verdict("a", "b", clear.psnr).startswith("b is better than a: a minus b is -1.40 dB")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = dark_pairs(6, side=96)
    methods = {name: BASELINES[name] for name in ("gamma", "autocontrast")}
    outputs: dict[tuple[str, str], np.ndarray] = {}
    both, _ = score_pairs(pairs, methods, FAST, outputs=outputs)
    one, other = (both[both["method"] == name] for name in methods)
    images = {
        i: ComparedPair(low, outputs[i, "gamma"], outputs[i, "autocontrast"], high)
        for i, low, high in pairs
    }
    target = tmp_path_factory.mktemp("comparison") / "page.html"
    about = ComparisonPage(
        "<b>one</b>", "other", {"data": "d48f.dir"}, (Differs("train.lr", "1", "2"),), "A note."
    )
    return render_comparison(target, about, compare(one, other, FAST), images)


def test_the_page_has_everything_in_it(page: Path) -> None:
    html = page.read_text("utf-8")
    elements = Elements(html)
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    assert "<b>one</b>" not in html and "&lt;b&gt;one&lt;/b&gt; against other" in html
    assert "A note." in elements.text and "train.lr" in elements.text
    labels = [image["data-name"] for image in elements.all("img")[:4]]
    assert labels == ["dark input", "<b>one</b>", "other", "reference"]
    ids = {section["id"] for section in elements.all("section")}
    assert 4 <= len(ids) == len(elements.all("section")) <= 10


def test_a_large_image_is_reduced_and_says_so(tmp_path: Path) -> None:
    large = np.zeros((10, 3200, 3), np.uint8)
    found = compare(scores([20.0]), scores([21.0]), FAST)
    pair = {"eval15/0.png": ComparedPair(large, large, large, large)}
    text = render_comparison(tmp_path / "p.html", ComparisonPage("a", "b"), found, pair).read_text()
    assert "3200x10 pixels, shown at 50 %" in text


def test_images_show_at_native_size_offline(page: Path, tmp_path: Path) -> None:
    with open_browser(tmp_path / "profile") as browser:
        fetched(browser)
        browser.get(page.as_uri())
        pairs = browser.find_elements(By.CSS_SELECTOR, ".pair")
        shown = browser.find_elements(By.CSS_SELECTOR, ".native img, .stage img")
        assert len(shown) == len(pairs) * 6
        assert {(i.size["width"], i.size["height"]) for i in shown} == {(96, 96)}
        # the slider opens with the two models
        chosen = [s.get_property("value") for s in pairs[0].find_elements(By.TAG_NAME, "select")]
        assert chosen == ["<b>one</b>", "other"]
        assert not complaints(browser)
        assert all(address.startswith(LOCAL) for address in fetched(browser))
