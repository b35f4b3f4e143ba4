"""A job as a folder on the checkpoint store, for clusters without a shared disk.

``job.json`` has params and pair names; ``data.safetensors`` the decoded pixels and, for a warm
start, the initial weights, and those of the perceptual term; ``teacher/`` a teacher in the
project's format. Written once per run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from pyarrow import fs
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from mirnet.errors import TrainingError
from mirnet.models import load_model, save_model
from mirnet.objectives.perceptual.features import vgg_of
from mirnet.params import Params
from mirnet.storage.arrow import read_text, storage_errors, write_text
from mirnet.training.data.packs import fetch_pack, node_folder, send_pack
from mirnet.training.data.pairs import PackedPairs
from mirnet.training.job import Job

_JOB, _DATA, _TEACHER = "job.json", "data.safetensors", "teacher"
_INITIAL, _FEATURES = "initial.", "perceptual."


class JobManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    params: Params
    digest: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    has_initial: bool
    has_teacher: bool
    packs: dict[str, str] = {}


def send_job(job: Job, filesystem: fs.FileSystem, path: str, *, packs: str = "") -> None:
    """Upload a job to a path of the store, unless the same one exists.

    Packs of large sets go to the folder ``packs``, where other runs find them.

    Raises:
        StorageError: the store refuses; names the path.
    """
    places = {}
    for role, pairs in (("train", job.train), ("val", job.val)):
        if pairs.folder is not None:
            places[role] = f"{packs}/{pairs.folder.name}"
            send_pack(pairs.folder, filesystem, places[role])
    manifest = JobManifest(
        params=job.params,
        digest=job.digest,
        train=job.train.names,
        val=job.val.names,
        has_initial=job.initial is not None,
        has_teacher=job.teacher is not None,
        packs=places,
    ).model_dump_json(by_alias=True)
    with storage_errors(path), tempfile.TemporaryDirectory() as name:
        if read_text(filesystem, f"{path}/{_JOB}") == manifest:
            return
        folder = Path(name)
        save_file(_tensors(job), folder / _DATA)
        if job.teacher is not None:
            save_model(job.teacher, folder / _TEACHER)
        filesystem.create_dir(path, recursive=True)
        fs.copy_files(name, path, fs.LocalFileSystem(), filesystem)
        write_text(filesystem, f"{path}/{_JOB}", manifest)  # last: marks it as complete


def receive_job(filesystem: fs.FileSystem, path: str) -> Job:
    """The job uploaded by :func:`send_job`.

    Raises:
        TrainingError: there is none, since this machine and the sender do not share the store.
    """
    with storage_errors(path), tempfile.TemporaryDirectory() as name:
        text = read_text(filesystem, f"{path}/{_JOB}")
        if text is None:
            raise TrainingError(
                f"{path} holds no training job: the cluster does not see the checkpoint store of "
                "the sender. Set MIRNET_STORAGE_URI to s3://bucket/prefix or to a shared folder"
            )
        fs.copy_files(path, name, filesystem, fs.LocalFileSystem())
        manifest, tensors = JobManifest.model_validate_json(text), load_file(Path(name) / _DATA)
        teacher = load_model(Path(name) / _TEACHER) if manifest.has_teacher else None
    initial, features = (
        {key.removeprefix(of): value for key, value in tensors.items() if key.startswith(of)}
        for of in (_INITIAL, _FEATURES)
    )
    return Job(
        params=manifest.params,
        train=_pairs(manifest, "train", tensors, filesystem),
        val=_pairs(manifest, "val", tensors, filesystem),
        digest=manifest.digest,
        initial=initial if manifest.has_initial else None,
        teacher=teacher,
        features=vgg_of(features, origin=path) if features else None,
    )


def _tensors(job: Job) -> dict[str, Tensor]:
    tensors = {_INITIAL + key: value for key, value in (job.initial or {}).items()}
    if job.features is not None:
        tensors |= {_FEATURES + key: value for key, value in job.features.state_dict().items()}
    for role, pairs in (("train", job.train), ("val", job.val)):
        if pairs.folder is not None:
            continue
        tensors[f"{role}.pixels"] = torch.from_numpy(pairs.pixels)
        tensors[f"{role}.sizes"] = torch.from_numpy(pairs.sizes)
    return tensors


def _pairs(
    manifest: JobManifest, role: str, tensors: dict[str, Tensor], filesystem: fs.FileSystem
) -> PackedPairs:
    if role in manifest.packs:
        place = manifest.packs[role]
        return fetch_pack(filesystem, place, node_folder(place))
    names = manifest.train if role == "train" else manifest.val
    return PackedPairs(names, tensors[f"{role}.sizes"].numpy(), tensors[f"{role}.pixels"].numpy())
