"""``mirnet data``: import pairs, show their version, transfer and synthesise them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from mirnet.cli.progress import progress
from mirnet.cli.terminal import Commands, JsonOption, new_file, new_folder, note, say, say_json
from mirnet.errors import DataError, UsageError

if TYPE_CHECKING:
    from mirnet.data.matching import ImportPlan
    from mirnet.results import DataVersion

app = Commands(name="data", help="Data sets: import, status, pull, push, synthesize.")

DataOption = Annotated[Path, typer.Option("--data", help="Folder of the data set")]
NewDataOption = Annotated[
    Path, typer.Option("--data", callback=new_folder, help="Folder of the data set")
]
NewSetArgument = Annotated[
    Path, typer.Argument(callback=new_folder, help="Folder of the new data set")
]
RemoteOption = Annotated[
    str | None,
    typer.Option("--remote", help="Name of a DVC remote, or s3://bucket/prefix [the default one]"),
]


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Zip file or folder: LoL v1, LOL-v2, low/high")],
    data: NewDataOption = Path("data"),
    only: Annotated[
        str | None, typer.Option("--only", help="Part of the paths to take, e.g. Real_captured")
    ] = None,
    low: Annotated[
        str | None,
        typer.Option(
            "--low", help="Dark side: a folder, or a glob in which * is the name of the pair"
        ),
    ] = None,
    high: Annotated[
        str | None, typer.Option("--high", help="Bright side, e.g. trainB or '*_ref.png'")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Take several sets as one")] = False,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out images without a partner")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the contents of the folder")
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links in a folder")
    ] = False,
    max_files: Annotated[
        int, typer.Option("--max-files", min=1, help="Maximum number of files in archives")
    ] = 100_000,
    max_gib: Annotated[
        float, typer.Option("--max-gib", min=0, help="Maximum unpacked size of archives, GiB")
    ] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Import a zip file or folder into the LoL layout, atomically."""
    from mirnet.data.archives import Limits
    from mirnet.data.importer import import_data
    from mirnet.data.placing import Patterns
    from mirnet.data.versioning import data_version, read_pin, remember, take_snapshot

    if (low is None) != (high is None):
        raise UsageError("--low and --high go together: name both sides")
    with progress("importing", "pairs") as count:
        plan = import_data(
            source,
            data,
            only=only,
            patterns=Patterns(low, high) if low and high else None,
            merge=merge,
            skip_unpaired=skip_unpaired,
            replace=replace,
            follow_links=follow_links,
            limits=Limits(num_files=max_files, num_bytes=int(max_gib * 2**30)),
            on_pair=count,
        )
    if not as_json:
        _tell(plan)
    snapshot = take_snapshot(data)
    version = data_version(data, snapshot=snapshot)
    if version.status == "clean":
        remember(snapshot)
    if as_json:
        left_out = {what: len(paths) for what, paths in _left_out(plan).items()}
        say_json(
            {
                "data": data,
                "pairs": len(plan.pairs),
                "splits": [{"folder": folder, "split": split} for folder, split in plan.splits],
                "left_out": left_out,
                "version": version,
            }
        )
        return
    say(f"{data}: {len(plan.pairs)} pairs, {_words(version)}")
    pin = read_pin(data)
    if version.status == "modified" and pin:
        say(f"{pin.path.name} pins {pin.digest}; `dvc add {data}` pins what is there now")


def _tell(plan: ImportPlan) -> None:
    """Print the split of each folder, and the files that were left out."""
    for folder, split in plan.splits:
        say(f"{folder} -> {split}")
    for what, paths in _left_out(plan).items():
        if paths:
            say(f"left out: {len(paths)} {what}, such as {paths[0]}")


def _left_out(plan: ImportPlan) -> dict[str, Sequence[PurePosixPath]]:
    """Files that were not imported, by reason."""
    from mirnet.data.layout import IMAGE_SUFFIXES

    images = [path for path in plan.ignored if path.suffix.lower() in IMAGE_SUFFIXES]
    return {
        "images without a partner": plan.unpaired,
        "images of neither side": images,
        "images whose path does not contain --only": plan.not_chosen,
        "links, which --follow-links takes": plan.links,
    }


@app.command()
def status(
    data: DataOption = Path("data"),
    as_json: JsonOption = False,
) -> None:
    """Clean, modified, missing or untracked, and which files. Exit code 1 unless clean."""
    from mirnet.data.versioning import data_version, read_pin

    pin = read_pin(data)
    if pin and not data.exists():
        raise DataError(
            f"{data}: missing; {pin.path.name} pins {pin.digest} with {pin.num_files} files: "
            "`mirnet data import` or `mirnet data pull` brings them"
        )
    version = data_version(data)
    if as_json:
        say_json(version)
    else:
        say(f"{data}: {_words(version)}")
        for name in version.changed:
            say(f"  {name}")
        if pin and version.status == "modified" and not version.changed:
            say(
                f"  pinned: {pin.num_files} files of {pin.size} bytes; here: {version.size} bytes. "
                "Which differ is not known, since the list of the pinned ones is not here"
            )
    if version.status != "clean":
        raise typer.Exit(1)


@app.command()
def pull(
    data: DataOption = Path("data"),
    remote: RemoteOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace local changes")] = False,
    as_json: JsonOption = False,
) -> None:
    """Download the pinned version from a remote."""
    from mirnet.config import load_settings
    from mirnet.data.versioning import data_version, pull

    endpoint = load_settings().s3_endpoint_url
    with progress("pulling"):
        received = pull(data, remote=remote, endpoint_url=endpoint, force=force)
    version = data_version(data)
    if as_json:
        say_json({"data": data, "received": received, "version": version})
        return
    say(f"{data}: {received} files received, {_words(version)}")


@app.command()
def upload(
    folder: Annotated[Path, typer.Argument(help="Folder with photographs")],
    target: Annotated[str, typer.Argument(help="s3://bucket/prefix")],
    as_json: JsonOption = False,
) -> None:
    """Copy the photographs of a folder to a bucket; those that are there are kept.

    Those of other contents than the ones here are counted.
    """
    from mirnet.config import load_settings
    from mirnet.images.formats import format_of_suffix
    from mirnet.storage.places import open_store

    store = open_store(target, load_settings())
    found = _photographs(folder)
    there = {each.key: each.size for each in store.list()}
    sent, differ = 0, []
    with progress("uploading", "photographs") as count:
        for done, path in enumerate(found, start=1):
            name, data, kind = path.name, _read(path), format_of_suffix(path.suffix)
            media = kind.content_type if kind else "application/octet-stream"
            if name not in there and store.put_if_absent(name, data, content_type=media):
                sent += 1
            elif there.get(name, len(data)) != len(data) or store.get(name).data != data:
                differ.append(name)
            count(done, len(found))
    if as_json:
        say_json({"target": target, "photographs": len(found), "sent": sent, "differ": differ})
        return
    say(f"{target}: {sent} of {len(found)} photographs sent; the others were there")
    if differ:
        say(f"{len(differ)} of them with other contents, which are kept, such as {differ[0]}")


def _photographs(folder: Path) -> list[Path]:
    """Images directly in a folder, without hidden files and those of operating systems.

    Raises:
        DataError: no such folder, or none in it.
    """
    from mirnet.data.layout import IMAGE_SUFFIXES
    from mirnet.junk import is_junk

    try:
        listed = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    images = [path for path in listed if path.suffix.lower() in IMAGE_SUFFIXES]
    found = [
        path
        for path in images
        if path.is_file() and not path.name.startswith(".") and not is_junk([path.name])
    ]
    if not found:
        raise DataError(f"{folder}: no photographs in it")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


@app.command()
def push(
    data: DataOption = Path("data"), remote: RemoteOption = None, as_json: JsonOption = False
) -> None:
    """Upload the pinned version to a remote."""
    from mirnet.config import load_settings
    from mirnet.data.versioning import push

    with progress("pushing"):
        sent = push(data, remote=remote, endpoint_url=load_settings().s3_endpoint_url)
    say_json({"data": data, "sent": sent}) if as_json else say(f"{data}: {sent} files sent")


@app.command()
def files(
    data: DataOption = Path("data"), remote: RemoteOption = None, as_json: JsonOption = False
) -> None:
    """Path, md5, size and remote URL of every file, one JSON object per line; --json: one list."""
    from mirnet.config import load_settings
    from mirnet.data.versioning import list_remote_files

    endpoint = load_settings().s3_endpoint_url
    found = list_remote_files(data, remote=remote, endpoint_url=endpoint)
    if as_json:
        say_json(list(found))
        return
    for file in found:
        say_json(asdict(file), indent=None)


@app.command()
def overlap(
    first: Annotated[Path, typer.Argument(help="Folder of images, e.g. the training data")],
    second: Annotated[Path, typer.Argument(help="Folder of images, e.g. a test set")],
    html: Annotated[
        Path | None,
        typer.Option("--html", callback=new_file, help="Write a page with the images side by side"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Images of the second set that show a scene of the first. Exit code 1 if there are any."""
    from mirnet.data.overlap import find_overlap

    with progress("measuring", "images") as count:
        found = find_overlap(first, second, progress=count)
    page = None
    if html is not None:
        from mirnet.data.overlap_page import render_overlap

        page = render_overlap(html, first, second, found)
    if as_json:
        say_json({"first": first, "second": second, "page": page, "overlap": found})
    else:
        for path in found.unreadable:
            note(f"not compared: {path}")
        for shared in found.shared:
            alike = f"same scene, {shared.similarity:.3f}"
            how = "same pixels" if shared.same == "pixels" else alike
            say(f"{shared.second}  {shared.first}  {how}")
        say(found)
        if page is not None:
            say(f"page: {page}")
    if found.shared:
        raise typer.Exit(1)


@app.command()
def synthesize(
    source: Annotated[Path, typer.Argument(help="Folder of well-lit photographs")],
    destination: NewSetArgument,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same pairs")] = 0,
    per_photo: Annotated[int, typer.Option("--per-photo", min=1, help="Pairs per photograph")] = 1,
    size: Annotated[
        int | None, typer.Option("--size", min=16, help="Square crops, pixels [whole photographs]")
    ] = None,
    eval_share: Annotated[
        float, typer.Option("--eval-share", min=0, max=0.9, help="Photographs kept for eval15")
    ] = 0.1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Range, e.g. exposure=[0.02,0.4]"),
    ] = None,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide", help="Any light: six stops, casts, tone curves, JPEG, well-lit pairs"
        ),
    ] = False,
    num_processes: Annotated[int, typer.Option("--processes", min=1, help="Processes")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Synthesise dark pairs from photographs with a camera model; parameters are in pairs.csv."""
    from mirnet.data.degradation import ranges_from
    from mirnet.data.samples import make_from_photographs

    ranges = ranges_from(set_ or [], wide=wide)
    with progress("synthesizing"):
        pairs = make_from_photographs(
            source,
            destination,
            seed=seed,
            per_photo=per_photo,
            size=size,
            eval_share=eval_share,
            ranges=ranges,
            num_processes=num_processes,
        )
    _tell_made(destination, len(pairs), as_json=as_json)


@app.command()
def sample(
    destination: NewSetArgument,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same pairs")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write the sample pairs of the demo."""
    from mirnet.data.samples import make_sample_data

    with progress("making pairs"):
        pairs = make_sample_data(destination, seed=seed)
    _tell_made(destination, len(pairs), as_json=as_json)


def _tell_made(destination: Path, pairs: int, *, as_json: bool) -> None:
    if as_json:
        say_json({"data": destination, "pairs": pairs})
        return
    say(f"{destination}: {pairs} pairs")


def _words(version: DataVersion) -> str:
    changed = f", {len(version.changed)} files differ" if version.changed else ""
    return f"{version.status}{changed}, version {version.digest}, {version.num_files} files"
