"""The report as people see it: in Chromium, with and without JavaScript, on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from mirnet.evaluation.report import Page
from tests.browser import LOCAL, complaints, fetched, open_browser
from tests.evaluation.test_report import HISTORY, make_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "index.html"
    make_page(target, 5, page=Page("MIRNet", "mirnet", {"data": "d48f.dir"}, HISTORY))
    return target


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


def loaded_pictures(browser: Chrome) -> int:
    return int(
        browser.execute_script(
            "return [...document.images].filter(i => i.complete && i.naturalWidth > 0"
            " && i.offsetWidth > 0).length"
        )
    )


def cut(browser: Chrome) -> float:
    value = browser.find_element(By.CSS_SELECTOR, ".compare input").get_property("value")
    assert isinstance(value, str)
    return float(value)


def test_pictures_show_and_the_slider_moves_offline(browser: Chrome, page: Path) -> None:
    fetched(browser)
    browser.get(page.as_uri())
    assert browser.title == "MIRNet"
    assert loaded_pictures(browser) == 5 * 4 + 5 * 2, "the gallery and both sides of each slider"

    top = browser.find_element(By.CSS_SELECTOR, ".stage .top")
    assert cut(browser) == 50
    before = top.value_of_css_property("clip-path")
    stage = browser.find_element(By.CSS_SELECTOR, ".stage")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)
    quarter = -stage.size["width"] // 4
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(
        quarter, 0
    ).release().perform()
    assert cut(browser) == pytest.approx(25, abs=2)
    assert top.value_of_css_property("clip-path") != before
    slider = browser.find_element(By.CSS_SELECTOR, ".compare input")
    slider.send_keys("\ue014")  # arrow right: works from the keyboard too
    assert cut(browser) == pytest.approx(25.5, abs=2)

    halves = [half.text for half in browser.find_elements(By.CSS_SELECTOR, ".half")][:2]
    assert halves == ["dark input", "enhanced"]
    native = (
        "return [...document.querySelectorAll('.stage .under, .native img')]"
        ".every(i => i.offsetWidth === i.naturalWidth)"
    )
    assert browser.execute_script(native), "pixel by pixel"

    left = Select(browser.find_element(By.CSS_SELECTOR, ".controls select"))
    low = top.get_attribute("src")
    left.select_by_visible_text("reference")
    assert top.get_attribute("src") != low
    assert browser.find_element(By.CSS_SELECTOR, ".half.left").text == "reference"

    assert complaints(browser) == []
    outside = [url for url in fetched(browser) if not url.startswith(LOCAL)]
    assert outside == []


def test_it_reads_without_javascript(browser: Chrome, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert loaded_pictures(browser) == 5 * 4
        assert not browser.find_elements(By.CSS_SELECTOR, ".stage")
        assert "PSNR dB" in browser.find_element(By.ID, "summary").text
        assert browser.find_element(By.CSS_SELECTOR, "svg").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_fits_a_phone(browser: Chrome, page: Path) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(page.as_uri())
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360, "only tables scroll sideways, inside themselves"
        stage = browser.find_element(By.CSS_SELECTOR, ".stage")
        natural = browser.execute_script("return document.querySelector('.under').naturalWidth")
        assert stage.size["width"] == min(natural, 328), "never enlarged, never wider than the page"
        assert complaints(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
