"""``mirnet verify``: whether the outputs of a target are what was written."""

from __future__ import annotations

from typing import Annotated

import typer

from mirnet.cli.terminal import JsonOption


def verify(
    target: Annotated[str, typer.Argument(help="Folder, s3://bucket/prefix or single output")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare versions and sizes only; read no output")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find outputs that were replaced, truncated or deleted. Exit code 1 if there are any."""
    from mirnet.batch.verification import verify_outputs
    from mirnet.cli.progress import progress
    from mirnet.cli.show import show_verification
    from mirnet.cli.terminal import say_json
    from mirnet.config import load_settings
    from mirnet.errors import DataError

    with progress("verifying", "outputs") as count:
        result = verify_outputs(target, load_settings(), quick=quick, progress=count)
    if as_json:
        say_json(result)
    else:
        show_verification(result)
    if result.num_problems:
        raise DataError(
            f"{target}: {result.num_problems} of {result.outputs} outputs are not what was written"
        )
