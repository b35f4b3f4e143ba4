"""``mirnet weights``: import of published checkpoints, export to other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mirnet.cli import completion
from mirnet.cli.progress import progress
from mirnet.cli.terminal import Commands, JsonOption, new_file, new_folder, say, say_json
from mirnet.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

app = Commands(help="Import published checkpoints, export to other runtimes.")


_MOST_LOWS = 16


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a network's authors")],
    out: Annotated[Path, typer.Option("--out", callback=new_folder, help="Folder to write")] = Path(
        "model"
    ),
    as_json: JsonOption = False,
) -> None:
    """Convert a published checkpoint of any size to a model folder. Executes no code from it."""
    from mirnet.models import num_parameters, read_checkpoint, save_model

    with progress("importing"):
        model = read_checkpoint(checkpoint)
        licence = model.architecture.licence
        save_model(model, out, extra={"imported_from": checkpoint.name, "licence": licence})
    count = num_parameters(model)
    if as_json:
        facts = {"model": model.config, "num_parameters": count, "licence": licence, "folder": out}
        say_json(facts)
        return
    say(f"{model.config}, {count:,} parameters -> {out}")
    say(f"licence of the published weights: {licence or 'not known'}")


@app.command()
def export(
    target: Annotated[Path, typer.Argument(callback=new_file, help="File to write")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Model folder, published checkpoint, models:/NAME@ALIAS or base",
            autocompletion=completion.models,
        ),
    ] = "model",
    format: Annotated[
        Literal["pt2", "onnx", "int8"], typer.Option("--format", help="Format to write")
    ] = "pt2",
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", help="int8: folder of dark images")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model for another runtime, with free batch, height and width, and verify it."""
    from mirnet import stages
    from mirnet.models import export as exporting, load_model

    network = load_model(stages.open_model(model, stages.load_run_config()).folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with progress("exporting"):
        if format == "int8":
            lows = _lows(calibrate, multiple=network.size_multiple, least=network.min_size)
            loss = exporting.export_int8(network, target, lows=lows)
            told, measured = f"{loss:.1f} dB PSNR to float32 on the lows", {"psnr_to_float32": loss}
        else:
            write = exporting.export_pt2 if format == "pt2" else exporting.export_onnx
            deviation = write(network, target)
            told = f"deviates by at most {deviation:.1e} from the network"
            measured = {"deviation": deviation}
    if as_json:
        size = target.stat().st_size
        say_json({"file": target, "format": format, "bytes": size, **measured})
        return
    say(f"{target}: {_size(target)}, {told}")


def _lows(folder: Path | None, *, multiple: int, least: int) -> list[npt.NDArray[np.float32]]:
    """The first images of a folder as (1, 3, H, W), cropped to multiples."""
    import numpy as np

    from mirnet.images import read_rgb

    if folder and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder else []
    lows = []
    for path in paths[:_MOST_LOWS]:
        image = read_rgb(path)
        if min(image.shape[:2]) < (needed := max(8, multiple, least)):
            message = f"too small to calibrate on, {needed} pixels per side are needed"
            raise UsageError(f"{path}: {message}")
        height, width = (side // multiple * multiple for side in image.shape[:2])
        batch = image[:height, :width].transpose(2, 0, 1)[None]
        lows.append(np.ascontiguousarray(batch, dtype=np.float32) / np.float32(255))
    return lows


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
