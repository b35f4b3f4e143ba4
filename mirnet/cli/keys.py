"""``mirnet keys``: the key pair that signs models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mirnet.cli.terminal import Commands, JsonOption, new_folder, say, say_json

app = Commands(help="Keys that sign model versions and moves of aliases.")


@app.command()
def new(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", callback=new_folder, help="Folder to write [keys in MIRNET_WORKSPACE]"
        ),
    ] = None,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing where there are keys")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a key pair; existing keys are not replaced.

    Whoever promotes needs the private key; whoever enhances, the public one.
    """
    from mirnet.config import load_settings
    from mirnet.signing.keys import PRIVATE, PUBLIC, make_keys

    settings = load_settings()
    folder = out or settings.keys_dir
    made = not (if_missing and (folder / PRIVATE).exists())
    key_id = make_keys(folder) if made else None
    if as_json:
        private, public = folder / PRIVATE, folder / PUBLIC
        say_json({"made": made, "id": key_id, "private_key": private, "public_key": public})
    if as_json or key_id is None:
        return
    say(f"private key, mode 0600: {folder / PRIVATE}")
    say(f"public key:             {folder / PUBLIC}")
    say(f"id: {key_id[:16]}")
    if folder.resolve() != settings.keys_dir.resolve():
        say("name them in MIRNET_SIGNING_KEY and MIRNET_TRUSTED_KEYS")
