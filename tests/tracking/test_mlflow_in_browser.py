"""MLflow's own pages over a store that we filled: what analysts see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mirnet.config import Settings
from mirnet.params import Params
from mirnet.results import DataVersion
from mirnet.tracking import connect, registry, track
from tests.browser import complaints, fetched, open_browser
from tests.mlflow_server import PATIENCE_S, mlflow_server

# MLflow asks for the user of a server without users, and its tables use an old name of their own
# the last: its layout settles a frame later, on a slow machine
MLFLOWS_OWN = ("mlflow/users/current", "AG Grid: since v27", "ResizeObserver loop")


@pytest.fixture
def address(versions: Settings, tmp_path: Path) -> Iterator[str]:
    with mlflow_server(versions.mlflow_uri, tmp_path) as server:
        yield server.address


def open_page(browser: Chrome, url: str, *texts: str) -> None:
    """Go there and wait until the page says all of this."""
    browser.get(url)
    wait_for(browser, lambda text: all(part in text for part in texts))


def wait_for(browser: Chrome, ready: Callable[[str], bool]) -> None:
    WebDriverWait(browser, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda b: ready(b.find_element(By.TAG_NAME, "body").text)
    )


def click(browser: Chrome, text: str) -> None:
    """As people do: MLflow's pages do not follow a change of the address alone."""
    WebDriverWait(browser, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda b: b.find_elements(By.XPATH, f"//*[text()='{text}']")
    )
    browser.find_element(By.XPATH, f"//*[text()='{text}']").click()


def shown_pictures(browser: Chrome) -> int:
    """Images of the image grid that have arrived; the grid shows previews of its own size."""
    return int(
        browser.execute_script(
            "return [...document.images].filter(i => i.src.includes('get-artifact?path=images')"
            " && i.complete && i.naturalWidth > 0).length"
        )
    )


def whole_previews(browser: Chrome) -> int:
    """Images of the description that are shown pixel by pixel."""
    return int(
        browser.execute_script(
            "return [...document.images].filter(i => i.src.includes('preview-small') &&"
            " i.naturalWidth > 0 && i.offsetWidth === i.naturalWidth).length"
        )
    )


def test_analysts_see_runs_data_tables_pictures_and_aliases(
    versions: Settings, version: DataVersion, address: str, tmp_path: Path
) -> None:
    page = tmp_path / "index.html"
    page.write_text("<h1>pictures side by side</h1>")
    model_id = str(registry.get_version("models:/mirnet/2", versions).model_id)
    with track(versions, purpose="evaluate", name="mirnet eval15 d48f655e") as run:
        run.log_params(Params())
        run.log_data(version, context="evaluation", split="eval15")
        run.log_used_model(model_id)
        run.log_metrics({"eval/psnr": 17.25}, data=version, model_id=model_id)
        run.log_table(pd.DataFrame({"pair_id": ["eval15/1.png"], "psnr": [17.25]}), "scores.json")
        run.log_preview(np.full((288, 872, 3), 128, np.uint8))
        run.log_note("Links", "[version 2](#/models/mirnet/versions/2) · logged model · report")
        run.log_image(np.full((40, 60, 3), 128, np.uint8), "eval15 1")
        run.log_file(page)
    connect(versions).set_registered_model_alias("mirnet", "champion", "2")
    experiment = f"{address}/#/experiments/{run.experiment_id}"
    with open_browser(tmp_path / "profile", width=1500) as browser:
        open_page(browser, f"{experiment}/runs", "mirnet eval15 d48f655e", version.digest[:12])
        one = f"{experiment}/runs/{run.run_id}"
        open_page(browser, one, run.run_id, version.digest, "train.lr", "eval/psnr", "17.25")
        WebDriverWait(browser, PATIENCE_S).until(whole_previews)
        open_page(browser, f"{one}/artifacts/scores.json", "eval15/1.png")
        click(browser, "index.html")
        WebDriverWait(browser, PATIENCE_S).until(lambda b: b.find_elements(By.TAG_NAME, "iframe"))
        browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
        wait_for(browser, lambda text: "side by side" in text)
        browser.switch_to.default_content()
        open_page(browser, f"{one}/model-metrics", "eval15 1")
        WebDriverWait(browser, PATIENCE_S).until(shown_pictures)
        open_page(browser, f"{experiment}/models/{model_id}", "eval/psnr", "17.25")
        open_page(browser, f"{address}/#/models/mirnet", "champion", "Version 3")
        theirs = [c for c in complaints(browser) if not any(part in c for part in MLFLOWS_OWN)]
        assert theirs == []
        outside = [u for u in fetched(browser) if u.startswith("http") and address not in u]
        assert outside == []
