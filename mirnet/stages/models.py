"""Models by address, ready to run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.base_model import BASE, DATA_DIGEST, FILES, FOLDER, NAME, NOTE, VERSION
from mirnet.errors import ServiceError, UsageError, WeightsError
from mirnet.results import DataVersion, ModelRef, OpenedModel
from mirnet.signing.files import digest_of
from mirnet.stages.run import RunConfig, load_run_config

if TYPE_CHECKING:
    from mirnet.inference import Enhancer

log = logging.getLogger(__name__)

CANDIDATE = "mirnet"
CHAMPION = "champion"
WELL_LIT = "well_lit_psnr"
HARM_SHARE = "harm_share"
PROFILE = "profile.json"
MODEL_FILES = ("architecture.json", "weights.safetensors", PROFILE)
PEAK_MIB = "peak_mib_per_megapixel"


def open_model(source: str, run: RunConfig) -> OpenedModel:
    """Open a folder or published checkpoint, ``models:/NAME@ALIAS`` from the registry, or ``base``.

    Raises:
        UsageError: no such folder or version, or no key to verify the version with.
        UntrustedModel: it has no valid signature, or its alias was moved by something else.
        WeightsError: the version is not READY, or a file is not the one that was signed.
        ServiceError: MLflow cannot be reached.
    """
    if source == BASE:
        return _open_base()
    if not source.startswith("models:/"):
        path = Path(source)
        if not path.exists():
            raise UsageError(
                f"{source}: no such model folder; or write models:/NAME@ALIAS, or {BASE}"
            )
        ref = ModelRef(path.resolve().name, weights_digest=_digest(path))
        return OpenedModel(path, ref, files=_files(path))
    from mirnet.tracking.registry import resolve

    return resolve(source, run.settings)


def _open_base() -> OpenedModel:
    """The model in the package; it has no signature, its digests are code."""
    weights = FILES["weights.safetensors"]
    ref = ModelRef(NAME, VERSION, weights_digest=weights, data_digest=DATA_DIGEST, note=NOTE)
    model = OpenedModel(FOLDER, ref, files=FILES, packaged=True)
    try:
        check_unchanged(FOLDER, model)
    except WeightsError as error:
        raise WeightsError(f"{error}: install mirnet-pipeline again") from error
    return model


def champion_or_base(run: RunConfig) -> str:
    """Address of the champion; ``base`` where no model has ever been promoted.

    For people. A night names its model, or has a champion.

    Raises:
        ServiceError: the registry cannot be reached.
    """
    from mirnet.tracking.client import has_store

    address = champion_address(run)
    if not has_store(run.settings):
        return BASE
    from mirnet.tracking.aliases import is_served

    return address if is_served(run.params.promote.name, CHAMPION, run.settings) else BASE


def champion_address(run: RunConfig) -> str:
    """``models:/NAME@champion``."""
    return f"models:/{run.params.promote.name}@{CHAMPION}"


def champion(run: RunConfig) -> OpenedModel | None:
    """The champion of the registry; none before the first promotion."""
    from mirnet.tracking.registry import list_versions, resolve

    name = run.params.promote.name
    if not any(CHAMPION in v.aliases for v in list_versions(name, run.settings)):
        return None
    return resolve(champion_address(run), run.settings)


def log_trained(
    model_dir: Path, run: RunConfig, *, run_id: str, version: DataVersion
) -> str | None:
    """Log the model as output of its training run in MLflow; returns its id.

    None if MLflow is unreachable: registration logs it later.

    Raises:
        WeightsError: the stored model does not reproduce its output.
        ServiceError: MLflow refuses access.
    """
    from mirnet.tracking.logged_models import log_model
    from mirnet.tracking.registry import COMMIT_TAG, DATA_TAG

    given = {DATA_TAG: version.digest, COMMIT_TAG: version.git_commit}
    tags = {key: value for key, value in given.items() if value is not None}
    try:
        return log_model(model_dir, run_id=run_id, settings=run.settings, tags=tags)
    except ServiceError as error:
        if not error.transient:
            raise
        log.warning("%s. The model will be logged when it is registered", error)
        return None


def open_enhancer(
    source: str | Path | None = None,
    *,
    params: str | Path | None = None,
    overrides: Sequence[str] = (),
    compile: bool = True,
) -> Enhancer:
    """A model by its address, ready to run as ``mirnet enhance`` runs it.

    Settings, such as the memory limit and the folder of compiled code, come from the environment
    (``MIRNET_*``).

    Args:
        source: a model folder, a published checkpoint file, or ``models:/NAME@ALIAS`` and
            ``models:/NAME/VERSION`` of the registry (``MIRNET_TRACKING_URI``), or ``base``, the
            model in the package; none: the champion, before the first promotion ``base`` with a
            warning in the log.
        params: as ``--params``: a preset or a YAML file; none: ``params.yaml`` of the working
            directory, else the preset ``cpu``.
        overrides: as ``--set``, such as ``enhance.precision=float32``.
        compile: compile the network for image sizes that occur repeatedly, unless
            ``MIRNET_COMPILE=false``.

    Raises:
        UsageError: no such folder, file, version, preset or parameter, a value out of bounds, or
            no key to verify the version with.
        UntrustedModel: the version has no valid signature, or its alias was moved by something
            else than Mirnet.
        WeightsError: it is not a model, the version is not READY, or a file is not the one that
            was signed.
        ServiceError: MLflow cannot be reached.
    """
    run = load_run_config(params, list(overrides))
    address = champion_or_base(run) if source is None else str(source)
    opened = open_model(address, run)
    if source is None and opened.packaged:
        log.warning("no champion: %s %s, %s", opened.ref.name, opened.ref.version, opened.ref.note)
    return load_enhancer(opened.folder, run, compile=compile)


def load_enhancer(folder: Path, run: RunConfig, *, compile: bool = False) -> Enhancer:
    """The model of a folder, with precision and limits from params and settings.

    Args:
        compile: compile the network for sizes that occur repeatedly. Takes up to a minute, which
            pays for a batch and not for the few images of an evaluation.
    """
    from mirnet.inference import Enhancer

    settings = run.settings
    return Enhancer.load(
        folder,
        precision=run.params.enhance.precision,
        memory_limit_gib=settings.memory_limit_gib,
        compile=compile and settings.compile,
        cache_dir=settings.cache("kernels"),
    )


def check_unchanged(folder: Path, model: OpenedModel) -> None:
    """Refuse a folder, or checkpoint file, with other files than the model was opened with.

    Raises:
        WeightsError: a file is missing or has changed; names it.
    """
    for name, digest in model.files.items():
        path = folder / name if folder.is_dir() else folder
        if not path.is_file() or digest_of(path) != digest:
            was = (
                "is not what was released" if model.packaged else "has changed since the run began"
            )
            raise WeightsError(f"{path}: {was}")


def _files(path: Path) -> dict[str, str]:
    """Digests of a checkpoint file, or of the model's own files in a plain folder."""
    if not path.is_dir():
        return {path.name: digest_of(path)}
    return {n: digest_of(path / n) for n in MODEL_FILES if (path / n).is_file()}


def _digest(path: Path) -> str:
    """SHA-256 of a folder's weights, or of a published checkpoint file."""
    if path.is_dir():
        from mirnet.tracking.logged_models import weights_digest

        return weights_digest(path)
    return digest_of(path)
