"""``mirnet s3``: the embedded S3 server by itself."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirnet.cli.terminal import JsonOption, new_folder, note, say_json

if TYPE_CHECKING:
    from mirnet.storage.s3server import S3Server

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def s3(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", "--home", callback=new_folder, help="Data and keys [s3 in MIRNET_WORKSPACE]"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1024, max=65535, help="Port on 127.0.0.1 [8333, or a free one]"),
    ] = None,
    bucket: Annotated[
        list[str] | None, typer.Option("--bucket", help="Create this bucket; repeatable")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run an S3 server on this machine until Ctrl-C, and print what a client needs.

    It listens on 127.0.0.1 only. Data stay in the folder, and so do its keys, which are printed.
    If AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set, these are the keys, and not printed.
    """
    from mirnet.config import engine_variable, load_settings
    from mirnet.signals import termination_as_exception
    from mirnet.storage.s3keys import ServerKeys, alone, server_keys
    from mirnet.storage.s3server import S3Server, usual_port

    place = folder or load_settings().workspace / "s3"
    chosen = port or usual_port()
    access, secret = (engine_variable(name) for name in _KEYS)
    try:
        # the keys are made by the one server that has the folder
        with termination_as_exception(), alone(place):
            keys = ServerKeys(access, secret) if access and secret else server_keys(place)
            with S3Server(
                place,
                buckets=tuple(bucket or ()),
                access_key=keys.access_key,
                secret_key=keys.secret_key,
                port=chosen,
            ) as server:
                _tell(server, own_keys=not (access and secret), as_json=as_json)
                _wait(server)
    except (KeyboardInterrupt, SystemExit):
        note(f"stopped: S3 at http://127.0.0.1:{chosen}; its data stay in {place.absolute()}")


def _tell(server: S3Server, *, own_keys: bool, as_json: bool) -> None:
    variables = {k: v for k, v in server.environment.items() if own_keys or k not in _KEYS}
    if as_json:
        say_json(
            {
                "endpoint": server.endpoint_url,
                "folder": str(server.folder),
                "environment": variables,
            },
            secrets=True,
        )
    else:
        for name, value in variables.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
    note(f"S3 at {server.endpoint_url}, data in {server.folder}; Ctrl-C stops it")


def _wait(server: S3Server) -> None:
    """Until a signal, or the end of the server, which is an error."""
    from mirnet.errors import ServiceError
    from mirnet.signals import stop_if_asked

    while server.running:
        stop_if_asked()
        time.sleep(0.2)
    raise ServiceError(f"S3 server at {server.endpoint_url} ended; see {server.log_path}")
