from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mirnet.config import Settings
from mirnet.errors import UntrustedModel, UsageError, WeightsError
from mirnet.models import build, load_model, save_model
from mirnet.results import DataVersion
from mirnet.tracking import connect, logged_models, packaging, registry, track
from mirnet.tracking.trust import gate_decision
from tests.small_models import make_model

# what an analyst's notebook does: MLflow and torch, nothing of ours, no pickle
STRANGER = """
import sys
sys.modules["mirnet"] = None
import mlflow.pytorch, numpy, torch
model = mlflow.pytorch.load_model(sys.argv[1])
check = sys.argv[1] + "/check/"
batch, expected = (numpy.load(check + n + ".npy") for n in ("input", "output"))
with torch.inference_mode():
    got = model(torch.from_numpy(batch)).numpy()
    free = model(torch.rand(1, 3, 64, 20))
assert free.shape == (1, 3, 64, 20)
print(float(abs(got - expected).max()))
"""


def package_of(version: registry.RegisteredVersion, settings: Settings) -> Path:
    return registry.resolve(f"models:/{version.name}/{version.version}", settings).folder.parent


def test_a_version_has_tags_links_and_files(
    store: Settings, version: DataVersion, tmp_path: Path
) -> None:
    model_dir = make_model(tmp_path / "model", seed=0)
    with track(store, purpose="train", name="run") as run:
        pass
    tags = {registry.DATA_TAG: version.digest, registry.COMMIT_TAG: "abc123", "empty": None}
    first = registry.register(
        model_dir, name="mirnet", run_id=run.run_id, settings=store, tags=tags
    )
    assert (first.version, first.status, first.run_id) == ("1", "READY", run.run_id)
    again = registry.register(model_dir, name="mirnet", run_id=run.run_id, settings=store)
    assert again.version == "1", "the same weights of the same run are one version"

    client = connect(store)
    logged = client.get_logged_model(str(first.model_id))
    assert str(logged.status) == "READY" and logged.source_run_id == run.run_id
    assert logged.name == "mirnet"
    outputs = client.get_run(run.run_id).outputs.model_outputs
    assert [o.model_id for o in outputs] == [first.model_id]

    with pytest.raises(UntrustedModel, match="mirnet version 1 has no signature"):
        registry.resolve("models:/mirnet/1", store)
    registry.sign_decision(first, gate_decision("refuse", "worse"), store)
    resolved = registry.resolve("models:/mirnet/1", store)
    assert (resolved.ref.data_digest, resolved.ref.git_commit) == (version.digest, "abc123")
    assert resolved.ref.run_id == run.run_id
    for name, value in load_model(resolved.folder).named_parameters():
        assert torch.equal(value, dict(load_model(model_dir).named_parameters())[name])


def test_metrics_of_an_evaluation_speak_of_the_model_and_its_data(
    versions: Settings, version: DataVersion
) -> None:
    model_id = str(registry.get_version("models:/mirnet/1", versions).model_id)
    with track(versions, purpose="evaluate", name="scored") as run:
        for _ in range(2):
            run.log_used_model(model_id)
        run.log_data(version, context="evaluation", split="eval15")
        run.log_metrics({"eval/psnr": 19.5}, data=version, model_id=model_id)
    client = connect(versions)
    inputs = client.get_run(run.run_id).inputs
    assert [model.model_id for model in inputs.model_inputs] == [model_id]
    metrics = client.get_logged_model(model_id).metrics
    assert metrics is not None
    (metric,) = metrics
    assert (metric.key, metric.value, metric.run_id) == ("eval/psnr", 19.5, run.run_id)
    assert (metric.dataset_name, metric.dataset_digest) == ("data", version.digest)


def test_a_stranger_loads_it_without_our_package_and_without_pickle(
    versions: Settings,
) -> None:
    package = package_of(registry.list_versions("mirnet", versions)[0], versions)
    signature = yaml.safe_load((package / "MLmodel").read_text())["signature"]
    for side in ("inputs", "outputs"):
        spec = json.loads(signature[side])[0]["tensor-spec"]
        assert (spec["shape"], spec["dtype"]) == ([-1, 3, -1, -1], "float32")
    command = [sys.executable, "-c", STRANGER, str(package)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        env={"PATH": "/usr/bin:/bin", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= packaging.TOLERANCE


def test_addresses(versions: Settings) -> None:
    connect(versions).set_registered_model_alias("mirnet", "champion", "2")
    assert registry.get_version("models:/mirnet@champion", versions).version == "2"
    assert registry.get_version("models:/mirnet/3", versions).version == "3"
    numbers = [v.version for v in registry.list_versions("mirnet", versions)]
    assert numbers == ["3", "2", "1"]
    assert registry.list_versions("nobody's", versions) == []
    with pytest.raises(UsageError, match="there are 3, 2 @champion, 1"):
        registry.get_version("models:/mirnet@challenger", versions)
    with pytest.raises(UsageError, match="other has no versions"):
        registry.get_version("models:/other/1", versions)
    for wrong in ("mirnet@champion", "models:/mirnet", "models:/mirnet/latest", "models:/@x"):
        with pytest.raises(UsageError, match="write models:/NAME@ALIAS"):
            registry.get_version(wrong, versions)


def copied_package(versions: Settings, tmp_path: Path) -> Path:
    package = package_of(registry.list_versions("mirnet", versions)[0], versions)
    return Path(shutil.copytree(package, tmp_path / "package"))


def test_a_whole_package_is_proven(versions: Settings, tmp_path: Path) -> None:
    packaging.verify_package(copied_package(versions, tmp_path))


def test_a_package_from_before_the_margin_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph is the bare network, and its MLmodel says nothing of a margin."""
    with monkeypatch.context() as before:
        before.setattr(packaging, "Margined", lambda network: network)
        package = packaging.write_package(make_model(tmp_path / "m", seed=0), tmp_path / "package")
    described = yaml.safe_load((package / "MLmodel").read_text())
    assert described["metadata"].pop("margin") == 16
    (package / "MLmodel").write_text(yaml.safe_dump(described))
    packaging.verify_package(package)


def test_another_output_is_found(versions: Settings, tmp_path: Path) -> None:
    package = copied_package(versions, tmp_path)
    output = np.load(package / "check" / "output.npy")
    np.save(package / "check" / "output.npy", output + 0.01)
    with pytest.raises(WeightsError, match="does not give its stored output: differs by up to"):
        packaging.verify_package(package)


def test_other_weights_are_found(versions: Settings, tmp_path: Path) -> None:
    package = copied_package(versions, tmp_path)
    make_model(package / "native", seed=77)
    with pytest.raises(WeightsError, match="native does not give its stored output"):
        packaging.verify_package(package)


def test_a_damaged_graph_is_found(versions: Settings, tmp_path: Path) -> None:
    package = copied_package(versions, tmp_path)
    graph = package / "data" / "model.pt2"
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="does not load"):
        packaging.verify_package(package)


def test_a_missing_proof_is_found(versions: Settings, tmp_path: Path) -> None:
    package = copied_package(versions, tmp_path)
    (package / "check" / "input.npy").unlink()
    with pytest.raises(WeightsError, match=r"input\.npy is missing"):
        packaging.verify_package(package)


def test_a_model_is_logged_under_the_name_of_its_network(
    store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(build("mirnet-v2", n_feat=16, num_rrg=1), tmp_path / "v2")
    with track(store, purpose="train", name="run") as run:
        pass

    def refused(*_: object, **__: object) -> Path:
        raise WeightsError("not packaged")

    monkeypatch.setattr(packaging, "write_package", refused)  # takes seconds
    with pytest.raises(WeightsError, match="not packaged"):
        logged_models.log_model(folder, run_id=run.run_id, settings=store)
    (model,) = connect(store).search_logged_models([run.experiment_id])
    assert model.name == "mirnet-v2"


def test_what_was_logged_under_another_name_is_found(store: Settings, tmp_path: Path) -> None:
    """Up to 0.1 every model was logged as "mirnet"."""
    folder = save_model(build("mirnet-v2", n_feat=16, num_rrg=1), tmp_path / "v2")
    digest = logged_models.weights_digest(folder)
    with track(store, purpose="train", name="run") as run:
        pass
    client = connect(store)
    old = client.create_logged_model(
        run.experiment_id,
        name="mirnet",
        source_run_id=run.run_id,
        tags={logged_models.DIGEST_TAG: digest},
    )
    client.finalize_logged_model(old.model_id, "READY")
    assert logged_models.find_model(run.run_id, digest, store) == old.model_id
    assert logged_models.log_model(folder, run_id=run.run_id, settings=store) == old.model_id


def test_a_folder_that_is_no_model_leaves_no_version(store: Settings, tmp_path: Path) -> None:
    with track(store, purpose="train", name="run") as run:
        pass
    with pytest.raises(WeightsError, match=r"weights\.safetensors is missing"):
        registry.register(tmp_path, name="mirnet", run_id=run.run_id, settings=store)
    broken = make_model(tmp_path / "broken", seed=0)
    described = json.loads((broken / "architecture.json").read_text())
    described["architecture"]["n_feat"] = 16
    (broken / "architecture.json").write_text(json.dumps(described))
    with pytest.raises(WeightsError):
        registry.register(broken, name="mirnet", run_id=run.run_id, settings=store)
    assert registry.list_versions("mirnet", store) == []
    models = connect(store).search_logged_models([run.experiment_id])
    assert [str(model.status) for model in models] == ["FAILED"]


def test_weights_that_changed_in_the_store_are_refused(versions: Settings) -> None:
    client = connect(versions)
    client.set_model_version_tag("mirnet", "1", logged_models.DIGEST_TAG, "0" * 64)
    with pytest.raises(UntrustedModel, match=r"the weights in the registry, 0000.* not the signed"):
        registry.resolve("models:/mirnet/1", versions)
    with pytest.raises(WeightsError, match="not those that were registered"):
        registry.verify(registry.get_version("models:/mirnet/1", versions), versions)
