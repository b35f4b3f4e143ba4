"""``mirnet keys``: the key pair that signs models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirnet.cli.terminal import say

app = typer.Typer(help="Keys that sign model versions and moves of aliases.", no_args_is_help=True)


@app.command()
def new(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write [keys in MIRNET_WORKSPACE]")
    ] = None,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing where there are keys")
    ] = False,
) -> None:
    """Create a key pair; existing keys are not replaced.

    Whoever promotes needs the private key; whoever enhances, the public one.
    """
    from mirnet.config import load_settings
    from mirnet.signing.keys import PRIVATE, PUBLIC, make_keys

    settings = load_settings()
    folder = out or settings.keys_dir
    if if_missing and (folder / PRIVATE).exists():
        return
    key_id = make_keys(folder)
    say(f"private key, mode 0600: {folder / PRIVATE}")
    say(f"public key:             {folder / PUBLIC}")
    say(f"id: {key_id[:16]}")
    if folder.resolve() != settings.keys_dir.resolve():
        say("name them in MIRNET_SIGNING_KEY and MIRNET_TRUSTED_KEYS")
