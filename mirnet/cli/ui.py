"""``mirnet ui``: the pages of MLflow, on the page to begin with."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirnet.cli.demo import HOME as DEMO_HOME
from mirnet.cli.terminal import say

if TYPE_CHECKING:
    from mirnet.config import Settings

# of `make demo`
_CHECKOUT_DEMO = Path(".demo")


def ui(
    place: Annotated[
        Path | None,
        typer.Argument(help="Folder of a demo, or a workspace [MIRNET_TRACKING_URI or workspace]"),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The store of the demo here")] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Port on loopback [5000, or a free one]"),
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the address, open no browser")
    ] = False,
) -> None:
    """Open MLflow's pages of the runs and models in a browser; the server runs until Ctrl-C."""
    from mirnet.signals import stop_if_asked, termination_as_exception
    from mirnet.tracking.pages import HOST, choose_port, has_server, page_path, serving

    settings = _settings(place, demo=demo)
    if has_server(settings):
        _show(settings.mlflow_uri.rstrip("/") + page_path(settings), no_open=no_open)
        return
    path, chosen = page_path(settings), choose_port(port)
    log = settings.workspace.absolute() / "ui.log"
    say(f"store: {settings.mlflow_uri}")
    try:
        with (
            termination_as_exception(),
            serving(settings, port=chosen, log_path=log) as server,
        ):
            _show(f"http://{HOST}:{chosen}{path}", no_open=no_open)
            say("Ctrl-C stops the server")
            while (code := server.poll()) is None:
                stop_if_asked()
                time.sleep(0.2)
        say(f"MLflow's server ended with {code}: see {log}")
        raise typer.Exit(1)
    except (KeyboardInterrupt, SystemExit):
        say("stopped")


def _settings(place: Path | None, *, demo: bool) -> Settings:
    """Settings with the store to show: without runs and models it is none.

    Raises:
        UsageError: nothing was tracked there.
    """
    from mirnet.config import load_settings
    from mirnet.errors import UsageError
    from mirnet.tracking.names import is_empty

    if demo and place is not None:
        raise UsageError("--demo is the demo here: give either it or a folder")
    demos = (DEMO_HOME, _CHECKOUT_DEMO)
    if place is None and not demo:
        settings = load_settings()
        if settings.tracking_uri is not None or not is_empty(settings.workspace / "mlflow.db"):
            return settings
        looked = [settings.workspace, *demos]
    else:
        looked = [*demos] if place is None else [place]
    for folder in looked:
        for workspace in (folder / "workspace", folder):
            if not is_empty(workspace / "mlflow.db"):
                return load_settings(workspace=workspace, tracking_uri=None)
    raise UsageError(
        f"{', '.join(map(str, looked))}: nothing was tracked here yet: `mirnet demo` or `mirnet "
        "train` does, or set MIRNET_TRACKING_URI"
    )


def _show(address: str, *, no_open: bool) -> None:
    say(address)
    if not no_open and not webbrowser.open(address):
        say("no browser here: open the address yourself")
