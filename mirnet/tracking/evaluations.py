"""Models by what MLflow knows of them: their evaluations, scores per image, and files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import UsageError, WeightsError
from mirnet.tracking.client import connect, service_errors
from mirnet.tracking.logged_models import download, weights_digest
from mirnet.tracking.queries import RunSummary, find_run, get_run, list_runs
from mirnet.tracking.trust import NATIVE
from mirnet.tracking.versions import get_version, quoted

if TYPE_CHECKING:
    import pandas as pd

SCORES = "scores.json"
_MODEL, _METHOD, _TRAINING = "mirnet.model", "mirnet.method", "mirnet.training_run"
_CHAMPION = "champion "
"""Before the digest in the tag of a champion that another model was compared with."""
_DIGEST, _SPLIT = "mirnet.data_digest", "mirnet.split"


@dataclass(frozen=True)
class Subject:
    """A model, or a baseline, as a person named it.

    Attributes:
        label: short, for a heading.
        training: the run that trained it; none for a baseline.
        evaluations: its scored runs, the newest first.
        version: address in the registry, if it was named by one.
    """

    label: str
    training: RunSummary | None
    evaluations: tuple[RunSummary, ...]
    version: str | None = None


@dataclass(frozen=True)
class SharedEvaluation:
    """An evaluation of each of two models on the same pairs."""

    first: RunSummary
    second: RunSummary

    @property
    def digest(self) -> str:
        """DVC's, of the data."""
        return self.first.tags[_DIGEST]

    @property
    def split(self) -> str:
        return self.first.tags[_SPLIT]


def find_subject(reference: str, settings: Settings) -> Subject:
    """What a run (id, name or prefix of one) or ``models:/NAME@ALIAS`` stands for.

    Raises:
        UsageError: there is no such run or version.
        ServiceError: MLflow cannot be reached.
    """
    if reference.startswith("models:/"):
        version = get_version(reference, settings)
        training = _training(version.run_id, settings)
        evaluations = _of_model(version.run_id, version.weights_digest, settings)
        return Subject(version.label, training, evaluations, version.address)
    run = find_run(reference, settings)
    if run.purpose == "train":
        return Subject(run.name, run, _of_model(run.run_id, None, settings))
    return Subject(run.name, _training(run.tags.get(_TRAINING), settings), (run,))


def shared_evaluation(first: Subject, second: Subject) -> SharedEvaluation:
    """The newest evaluations of both on the same split of the same data version.

    Raises:
        UsageError: there are none; says what each was scored on.
    """
    ids = [{run.run_id for run in subject.evaluations} for subject in (first, second)]
    if ids[0] and ids[0] == ids[1]:
        raise UsageError(f"{first.label} and {second.label} are one model: name two")
    for one in first.evaluations:
        for other in second.evaluations:
            same = all(
                one.tags.get(key) is not None and one.tags.get(key) == other.tags.get(key)
                for key in (_DIGEST, _SPLIT)
            )
            if same and one.run_id != other.run_id:
                return SharedEvaluation(one, other)
    told = "; ".join(f"{s.label}: {', '.join(_scored_on(s)) or 'nothing'}" for s in (first, second))
    raise UsageError(
        f"not scored on the same pairs ({told}): `mirnet evaluate --data DIR --model MODEL` scores "
        "a model folder or version"
    )


def image_scores(run: RunSummary, settings: Settings) -> pd.DataFrame:
    """Scores of an evaluation, one row per image.

    Raises:
        UsageError: the run has none, as it did not end.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    import pandas as pd

    client = connect(settings)
    with (
        service_errors(settings.mlflow_uri),
        tempfile.TemporaryDirectory(prefix="mirnet-scores-") as folder,
    ):
        if all(artifact.path != SCORES for artifact in client.list_artifacts(run.run_id)):
            raise UsageError(f"{run.name}: has no scores per image; its status is {run.status}")
        path = Path(client.download_artifacts(run.run_id, SCORES, folder))
        table = json.loads(path.read_text(encoding="utf-8"))
    scores = pd.DataFrame(table["data"], columns=table["columns"])
    numbers = scores.columns.difference(["pair_id", "method"])
    return scores.assign(**{str(name): pd.to_numeric(scores[name]) for name in numbers})


def scored_model(run: RunSummary, settings: Settings, target: Path) -> Path | None:
    """The model folder that an evaluation scored, with the weights that it names.

    Args:
        target: an empty folder, for artifacts that are not on this machine.

    Returns:
        None if MLflow has no model of the run.

    Raises:
        WeightsError: the stored weights are not those that were scored.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        inputs = client.get_run(run.run_id).inputs
        models = inputs.model_inputs if inputs else []
        if not models:
            return None
        location = str(client.get_logged_model(models[0].model_id).artifact_location)
    local = location.startswith("file:")
    folder = download(f"{location}/{NATIVE}", settings, None if local else target)
    expected = weights_of(run)
    if weights_digest(folder) != expected:
        raise WeightsError(f"{folder}: not the weights that {run.name} scored ({expected})")
    return folder


def method_of(run: RunSummary) -> str:
    """``mirnet``, ``champion`` or the name of a baseline."""
    return run.tags.get(_METHOD, "")


def weights_of(run: RunSummary) -> str:
    """Digest of the weights that an evaluation scored."""
    return run.tags.get(_MODEL, "").removeprefix(_CHAMPION)


def _training(run_id: str | None, settings: Settings) -> RunSummary | None:
    return get_run(run_id, settings) if run_id else None


def _of_model(
    training_run: str | None, digest: str | None, settings: Settings
) -> tuple[RunSummary, ...]:
    """As the model under test, and as the champion that another was compared with."""
    digests = {digest} if digest else set()
    if training_run:
        digests |= {weights_of(run) for run in _tagged(_TRAINING, training_run, settings)}
    addresses = [f"{role}{one}" for one in digests if one for role in ("", _CHAMPION)]
    scored = {
        run.run_id: run for value in addresses for run in _tagged(_MODEL, value, settings)
    }.values()
    finished = (run for run in scored if run.status == "FINISHED")
    return tuple(sorted(finished, key=lambda run: -run.started_s))


def _tagged(tag: str, value: str, settings: Settings) -> list[RunSummary]:
    """The evaluations with this tag, the newest first."""
    chosen = f"tags.`{tag}` = '{quoted(value)}'"
    return list_runs(settings, purpose="evaluate", filter_string=chosen, limit=1000)


def _scored_on(subject: Subject) -> Iterator[str]:
    for run in subject.evaluations:
        yield f"{run.tags.get(_SPLIT, '?')} of {run.tags.get(_DIGEST, '?')[:8]}"
