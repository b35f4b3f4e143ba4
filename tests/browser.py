"""Chromium without a window, and what it fetched and complained about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

LOCAL = ("file:", "data:", "blob:", "chrome:", "about:")


@contextmanager
def open_browser(profile: Path, *, width: int = 1200, height: int = 900) -> Iterator[Chrome]:
    """A browser for the time of a block; skips the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=ChromeService(executable_path=driver))
    try:
        browser.set_page_load_timeout(120)
        yield browser
    finally:
        browser.quit()


def complaints(browser: Chrome) -> list[str]:
    """Errors and warnings of the console since the last call."""
    entries = browser.get_log("browser")
    return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]


def fetched(browser: Chrome) -> list[str]:
    """Addresses that the pages asked for since the last call."""
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    return [
        str(m["params"]["request"]["url"])
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
