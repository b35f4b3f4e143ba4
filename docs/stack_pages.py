"""Screenshots of the pages of a running stack, for the guides.

    python docs/stack_pages.py .mirnet/stack

opens Prefect, MLflow, validation and the report with Chromium (Debian: chromium, chromium-driver)
and writes docs/images/stack-*.png. The runs of `make stack-test` are what they show.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mirnet.stack.plan import StackPaths, load_plan
from mirnet.stack.probes import basic, request

IMAGES = Path(__file__).parent / "images"
PATIENCE_S = 120
_OF_A_NIGHT = (
    ("contact", "enhance-contact", ("before", "after")),
    ("worst", "enhance-worst", ("fate", "brightness")),
    ("drift", "enhance-drift", ("distance", "drifted")),
)


@dataclass(frozen=True)
class Page:
    """An address, and what a person finds there once it is ready."""

    name: str
    url: str
    texts: tuple[str, ...]
    pictured: bool = True


def _ask(home: StackPaths, path: str, body: object) -> Any:
    plan, secrets = load_plan(home)
    status, content = request(
        f"{plan.url('prefect')}/api/{path}", headers=basic(secrets.prefect_auth), body=body
    )
    if status != 200:
        raise SystemExit(f"Prefect answers {status} to {path}")
    return json.loads(content)


def _experiment(home: StackPaths) -> str:
    """MLflow's id of the evaluations."""
    plan, secrets = load_plan(home)
    status, content = request(
        f"{plan.url('mlflow')}/api/2.0/mlflow/experiments/get-by-name"
        "?experiment_name=mirnet-evaluate",
        headers=basic(f"admin:{secrets.mlflow_admin}"),
    )
    if status != 200:
        raise SystemExit(f"MLflow answers {status}")
    return str(json.loads(content)["experiment"]["experiment_id"])


def _last_run(home: StackPaths, flow: str) -> dict[str, Any] | None:
    """The run of a flow that was the last to complete."""
    ended = {"flows": {"name": {"any_": [flow]}}, "sort": "END_TIME_DESC", "limit": 1} | {
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}
    }
    return next(iter(_ask(home, "flow_runs/filter", ended)), None)


def _artifacts(home: StackPaths, run: dict[str, Any] | None) -> dict[str, str]:
    """Key of each artifact of a run -> its id."""
    if run is None:
        return {}
    found = _ask(home, "artifacts/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    return {artifact["key"]: artifact["id"] for artifact in found}


def pages(home: StackPaths) -> list[Page]:
    """The tour; needs a retraining that has ended. With a night that has, its artifacts."""
    plan, _ = load_plan(home)
    prefect, mlflow = plan.url("prefect"), plan.url("mlflow")
    run = _last_run(home, "retrain")
    if run is None:
        raise SystemExit("no retraining has ended: `make stack-test` makes some")
    artifacts, night = _artifacts(home, run), _artifacts(home, _last_run(home, "enhance"))
    deployed = _ask(home, "deployments/filter", {"flows": {"name": {"any_": ["retrain"]}}})
    reports = home.folder("reports")
    index = json.loads((reports / "validate.json").read_text(encoding="utf-8"))["docs_path"]
    return [
        Page("prefect-deployments", f"{prefect}/deployments", ("retrain", "enhance", "monitor")),
        Page(
            "prefect-parameters",
            f"{prefect}/deployments/deployment/{deployed[0]['id']}/run",
            ("Folder in the LoL layout", "Preset name"),
        ),
        Page("prefect-run", f"{prefect}/runs/flow-run/{run['id']}", (run["name"], "promote")),
        Page(
            "prefect-artifact",
            f"{prefect}/artifacts/artifact/{artifacts['evaluation']}",
            ("autocontrast", "psnr"),
        ),
        Page(
            "prefect-promotion",
            f"{prefect}/artifacts/artifact/{artifacts['promotion']}",
            ("champion",),
        ),
        *(
            Page(f"prefect-{name}", f"{prefect}/artifacts/artifact/{night[key]}", texts)
            for name, key, texts in _OF_A_NIGHT
            if key in night
        ),
        Page(
            "prefect-cost",
            f"{prefect}/artifacts/artifact/{artifacts['cost']}",
            ("energy_kwh", "train"),
            pictured=False,
        ),
        Page("prefect-automations", f"{prefect}/automations", ("retrain after drift",)),
        Page(
            "mlflow-runs",
            f"{mlflow}/#/experiments/{_experiment(home)}/runs",
            ("autocontrast eval15", "mirnet eval15"),
            pictured=False,
        ),
        Page("mlflow-champion", f"{mlflow}/#/models/mirnet", ("champion",), pictured=False),
        Page(
            "validation",
            Path(index).resolve().as_uri(),
            ("Data passed", "alignment"),
            pictured=False,
        ),
        Page(
            "report",
            (reports / "evaluation" / "index.html").resolve().as_uri(),
            ("PSNR",),
            pictured=False,
        ),
    ]


def sign_in(browser: Chrome, home: StackPaths) -> None:
    """As a person does once: Prefect keeps the password in the browser, MLflow asks for it."""
    plan, secrets = load_plan(home)
    browser.get(plan.url("prefect"))
    login = base64.b64encode(secrets.prefect_auth.encode()).decode()
    browser.execute_script("localStorage.setItem('prefect-password', arguments[0])", login)
    host = plan.url("mlflow").removeprefix("http://")
    browser.get(f"http://admin:{secrets.mlflow_admin}@{host}/")


def show(browser: Chrome, page: Page) -> Page:
    """Open a page and wait until its texts are there."""
    browser.get(page.url)
    WebDriverWait(browser, PATIENCE_S).until(
        lambda b: all(text in b.find_element(By.TAG_NAME, "body").text for text in page.texts),
        f"{page.name}: {page.texts}",
    )
    return page


@contextmanager
def _browser(profile: str) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1360,820")
    browser = Chrome(
        options=options, service=ChromeService(executable_path=shutil.which("chromedriver"))
    )
    try:
        yield browser
    finally:
        browser.quit()


def main(home: StackPaths) -> None:
    """Write the screenshots."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, _browser(profile) as browser:
        sign_in(browser, home)
        for page in pages(home):
            if not page.pictured:
                continue
            show(browser, page)
            for button in browser.find_elements(By.CSS_SELECTOR, "[aria-label='Close']"):
                button.click()
            time.sleep(2)
            target = IMAGES / f"stack-{page.name}.png"
            browser.save_screenshot(str(target))
            print(target)


if __name__ == "__main__":
    main(StackPaths(Path(sys.argv[1] if len(sys.argv) > 1 else ".mirnet/stack").resolve()))
