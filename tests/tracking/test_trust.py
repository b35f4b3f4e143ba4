"""What somebody with an account on MLflow or its store can and cannot do to the champion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mirnet import stages
from mirnet.config import Settings
from mirnet.errors import UntrustedModel, UsageError, WeightsError
from mirnet.params import load_params
from mirnet.signing.keys import PRIVATE, PUBLIC, make_keys
from mirnet.tracking import aliases, audit, connect, history, registry, track
from mirnet.tracking.logged_models import DIGEST_TAG
from mirnet.tracking.trust import gate_decision
from mirnet.tracking.versions import GATE_TAG, REASONS_TAG, SIGNATURE_TAG
from tests.small_models import make_model
from tests.tracking.registering_child import skip_the_proof

CHAMPION = "models:/mirnet@champion"


@pytest.fixture(autouse=True)
def _no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_the_proof(monkeypatch)
    monkeypatch.setattr(registry, "_PAUSE_S", 0.0)


@dataclass(frozen=True)
class Site:
    """A registry of the test's own, and what an attacker has: a client."""

    settings: Settings
    client: MlflowClient
    root: Path

    def register(self, seed: int) -> registry.RegisteredVersion:
        folder = make_model(self.root / f"model-{seed}", seed=seed)
        (folder / "profile.json").write_text("{}")
        with track(self.settings, purpose="train", name=f"{seed}", key=f"{seed}") as run:
            pass
        return registry.register(
            folder,
            name="mirnet",
            run_id=run.run_id,
            settings=self.settings,
            tags={registry.DATA_TAG: "d48f.dir", registry.COMMIT_TAG: "abc"},
        )

    def promote(self, *seeds: int) -> None:
        for seed in seeds:
            aliases.promote(self.register(seed), why=f"better {seed}", settings=self.settings)

    def pin(self, settings: Settings | None = None) -> str:
        """What every night does first."""
        return stages.pin(None, stages.RunConfig(load_params("demo"), settings or self.settings))

    def folder(self, reference: str = CHAMPION) -> Path:
        """The model folder in the artifact store."""
        return registry.resolve(reference, self.settings).folder

    def held(self) -> dict[str, str]:
        found = self.client.get_registered_model("mirnet").aliases
        return {alias: str(version) for alias, version in found.items()}

    def hand(self, alias: str, version: str) -> None:
        """A move in MLflow's own pages."""
        self.client.set_registered_model_alias("mirnet", alias, version)

    def forget_signatures(self) -> None:
        """A registry as 0.2 left it."""
        for version in registry.list_versions("mirnet", self.settings):
            if version.signed:
                self.client.delete_model_version_tag("mirnet", version.version, SIGNATURE_TAG)
            self.client.set_model_version_tag("mirnet", version.version, GATE_TAG, "promote")
            self.client.set_model_version_tag(
                "mirnet", version.version, REASONS_TAG, "it is better"
            )
        for key, value in self.client.get_registered_model("mirnet").tags.items():
            old = {k: v for k, v in json.loads(value).items() if k not in ("signature", "targets")}
            self.client.set_registered_model_tag("mirnet", key, json.dumps(old))


@pytest.fixture
def site(store: Settings, tmp_path: Path) -> Site:
    return Site(store, connect(store), tmp_path)


def test_a_promotion_signs_every_file_with_decision_data_and_commit(site: Site) -> None:
    aliases.promote(
        site.register(1),
        why="x",
        settings=site.settings,
        gate=gate_decision("promote", "better by 0.4 dB"),
    )
    (found,) = audit.examine("mirnet", site.settings)
    assert found.problems == () and found.statement
    facts = found.statement.facts
    assert (facts.gate.outcome, facts.gate.reasons) == ("promote", ("better by 0.4 dB",))
    assert (facts.data_digest, facts.git_commit) == ("d48f.dir", "abc")
    assert set(found.statement.files) == {
        f"native/{name}" for name in ("architecture.json", "profile.json", "weights.safetensors")
    }
    assert site.pin() == "models:/mirnet/1"


def test_a_version_that_no_gate_saw_is_not_served_after_a_move_by_hand(site: Site) -> None:
    site.promote(1)
    planted = site.register(2)
    # with everything that can be copied: decision and the signature of another version
    good = registry.get_version("models:/mirnet/1", site.settings)
    for tag, value in {GATE_TAG: "promote", SIGNATURE_TAG: good.signature}.items():
        site.client.set_model_version_tag("mirnet", planted.version, tag, value)
    site.hand("champion", planted.version)
    with pytest.raises(UntrustedModel, match="its signature is of mirnet version 1"):
        site.pin()
    site.client.delete_model_version_tag("mirnet", planted.version, SIGNATURE_TAG)
    with pytest.raises(UntrustedModel, match="mirnet version 2 has no signature"):
        site.pin()
    with pytest.raises(UntrustedModel, match="no move in `mirnet registry history` put it there"):
        audit.sign("mirnet", site.settings)


def test_a_signed_version_is_not_served_where_no_recorded_move_put_it(site: Site) -> None:
    site.promote(1)
    refused = site.register(2)
    registry.sign_decision(refused, gate_decision("refuse", "worse"), site.settings)
    site.hand("champion", "2")
    with pytest.raises(
        UntrustedModel, match=r"is version 2, but by its history it is version 1.*rollback.*promote"
    ):
        site.pin()
    assert site.folder("models:/mirnet/2").is_dir(), "whoever names the version gets it"


def test_rollback_after_a_move_by_hand_goes_to_what_was_in_service(site: Site) -> None:
    site.promote(1, 2, 3)
    planted = site.register(4)
    site.hand("champion", planted.version)
    site.hand("previous", planted.version)
    change = aliases.rollback("mirnet", why="not ours", settings=site.settings)
    assert (change.version, site.held()) == ("3", {"champion": "3", "previous": "2"})
    assert site.pin() == "models:/mirnet/3"
    site.hand("previous", planted.version)
    aliases.rollback("mirnet", why="green", settings=site.settings)
    assert site.held() == {"champion": "2", "previous": "3"}
    assert site.pin() == "models:/mirnet/2"


def test_a_promotion_after_a_move_by_hand_keeps_the_right_previous(site: Site) -> None:
    site.promote(1)
    site.hand("champion", site.register(2).version)
    site.promote(3)
    assert site.held() == {"champion": "3", "previous": "1"}
    # the planted one may be put into service by a person
    planted = registry.get_version("models:/mirnet/2", site.settings)
    site.hand("champion", "2")
    assert aliases.promote(planted, why="checked", settings=site.settings) is not None
    assert site.pin() == "models:/mirnet/2"
    (found,) = audit.examine("mirnet", site.settings, "models:/mirnet/2")
    assert found.statement and found.statement.facts.gate.outcome == "by hand"


@pytest.mark.parametrize("name", ["profile.json", "architecture.json", "weights.safetensors"])
def test_a_changed_file_is_named_before_it_is_read(
    site: Site, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.promote(1)
    (site.folder() / name).write_text("{broken")
    monkeypatch.setattr("mirnet.models.load_model", lambda *_: pytest.fail("was read"))
    monkeypatch.setattr("mirnet.batch.drift.read_profile", lambda *_: pytest.fail("was read"))
    with pytest.raises(WeightsError, match=f"mirnet version 1: {name} has changed"):
        site.pin()


def test_files_that_were_added_removed_or_linked_are_named(site: Site) -> None:
    site.promote(1)
    folder = site.folder()
    (folder / "card.md").write_text("a model card")
    with pytest.raises(WeightsError, match=r"card\.md was added"):
        site.pin()
    (folder / "card.md").unlink()
    (folder / "profile.json").unlink()
    with pytest.raises(WeightsError, match=r"profile\.json is missing"):
        site.pin()
    (folder / "profile.json").symlink_to("/etc/passwd")
    with pytest.raises(WeightsError, match="only plain files"):
        site.pin()


def test_files_beside_the_model_folder_are_compared_by_verify(site: Site) -> None:
    site.promote(1)
    (site.folder().parent / "extra.py").write_text("import os")
    (found,) = audit.examine("mirnet", site.settings)
    assert found.problems == ("extra.py was added",)


def forge(site: Site, change: Callable[[dict[str, object]], None]) -> None:
    """The last entry of the history again, changed, under a later id."""
    _, value = max(site.client.get_registered_model("mirnet").tags.items())
    content = json.loads(value)
    change(content)
    later = f"{int(time.time() * 1000) + 5000:014d}-ffffffff"
    content["change_id"] = later
    site.client.set_registered_model_tag("mirnet", f"mirnet.history.{later}", json.dumps(content))


@pytest.mark.parametrize("signed", [True, False], ids=["old signature", "unsigned"])
@pytest.mark.parametrize("state", ["done", "planned"])
def test_a_forged_entry_moves_nothing(site: Site, state: str, signed: bool) -> None:
    site.promote(1)
    planted = site.register(2)
    registry.sign_decision(planted, gate_decision("refuse"), site.settings)

    def change(content: dict[str, object]) -> None:
        content |= {"version": "2", "targets": {"champion": "2"}, "state": state}
        if not signed:
            del content["signature"]

    forge(site, change)
    site.hand("champion", "2")
    with pytest.raises(UntrustedModel, match="by its history it is version 1"):
        site.pin()
    # the next move neither completes nor signs it
    site.promote(3)
    assert site.held() == {"champion": "3", "previous": "1"}
    found = {r.change.version: r for r in aliases.records("mirnet", site.settings)}
    assert not found["2"].trusted and found["2"].change.state == state
    assert found["3"].trusted


def test_an_entry_of_another_model_or_place_is_none(site: Site) -> None:
    site.promote(1)
    key, value = max(site.client.get_registered_model("mirnet").tags.items())
    site.client.set_registered_model_tag("mirnet", "mirnet.history.99999999999999-0", value)
    site.client.set_registered_model_tag("mirnet", "mirnet.history.99999999999999-1", "{" * 900)
    site.client.create_registered_model("other")
    site.client.set_registered_model_tag("other", key, value)
    assert [r.change.version for r in aliases.records("mirnet", site.settings)] == ["1"]
    assert aliases.records("other", site.settings) == []


def test_an_alias_that_moves_at_this_moment_is_served(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion that was cut off right after the move, before its entry said so."""
    site.promote(1)
    second, write = site.register(2), history.write_change

    def cut(client: MlflowClient, change: history.AliasChange, key: object) -> object:
        if change.state == "done":
            raise KeyboardInterrupt
        return write(client, change, key)  # type: ignore[arg-type]

    monkeypatch.setattr(aliases, "write_change", cut)
    with pytest.raises(KeyboardInterrupt):
        aliases.promote(second, why="x", settings=site.settings)
    assert site.pin() == "models:/mirnet/2"
    monkeypatch.undo()
    skip_the_proof(monkeypatch)
    site.promote(3)
    assert site.held() == {"champion": "3", "previous": "2"}


def test_a_clock_that_was_set_back_does_not_reorder_the_history(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.promote(1)
    second = site.register(2)
    monkeypatch.setattr("mirnet.tracking.aliases.time.time", lambda: 1000.0)
    aliases.promote(second, why="x", settings=site.settings)
    assert site.pin() == "models:/mirnet/2"


def test_tags_that_say_otherwise_than_the_signature_are_named(site: Site) -> None:
    site.promote(1)
    site.client.set_model_version_tag("mirnet", "1", registry.DATA_TAG, "other.dir")
    with pytest.raises(UntrustedModel, match=r"data digest in the registry, other\.dir, is not"):
        site.pin()
    site.client.set_model_version_tag("mirnet", "1", registry.DATA_TAG, "d48f.dir")
    site.client.delete_model_version_tag("mirnet", "1", DIGEST_TAG)
    with pytest.raises(UntrustedModel, match="the weights in the registry, none, is not"):
        site.pin()


def test_another_key_is_refused_until_it_is_trusted(site: Site) -> None:
    site.promote(1)
    theirs = site.root / "theirs"
    make_keys(theirs)
    elsewhere = Settings(
        workspace=site.settings.workspace,
        signing_key=theirs / PRIVATE,
        trusted_keys=theirs / PUBLIC,
    )
    with pytest.raises(UntrustedModel, match="its signature is not of a key in"):
        site.pin(elsewhere)
    mixed = elsewhere.model_copy(update={"trusted_keys": site.settings.trusted_keys})
    with pytest.raises(UsageError, match="what this key signs is not trusted here"):
        aliases.promote(registry.get_version("models:/mirnet/1", mixed), why="x", settings=mixed)


def test_a_key_is_replaced(site: Site) -> None:
    site.promote(1, 2)
    make_keys(site.root / "new")
    both = site.root / "both.pub"
    old = site.settings.trusted_keys
    assert old is not None
    both.write_bytes(old.read_bytes() + (site.root / "new" / PUBLIC).read_bytes())
    change = {"signing_key": site.root / "new" / PRIVATE, "trusted_keys": both}
    during = site.settings.model_copy(update=change)
    assert len(audit.sign("mirnet", during)) == 4
    after = during.model_copy(update={"trusted_keys": site.root / "new" / PUBLIC})
    assert site.pin(after) == "models:/mirnet/2"
    assert audit.sign("mirnet", after) == []
    aliases.rollback("mirnet", why="x", settings=after)
    assert site.pin(after) == "models:/mirnet/1"
    with pytest.raises(UntrustedModel):
        site.pin()


def without_keys(site: Site, *, allow: bool) -> Settings:
    absent = site.root / "absent"
    return Settings(
        workspace=site.settings.workspace,
        signing_key=absent,
        trusted_keys=absent,
        allow_unsigned=allow,
    )


def test_without_keys_nothing_is_promoted_or_opened(site: Site) -> None:
    site.promote(1)
    settings = without_keys(site, allow=False)
    with pytest.raises(UsageError, match=r"no public key.*mirnet keys new.*mirnet registry sign"):
        site.pin(settings)
    with pytest.raises(UsageError, match=r"no private key.*mirnet keys new"):
        aliases.promote(
            registry.get_version("models:/mirnet/1", settings), why="x", settings=settings
        )
    with pytest.raises(UsageError, match="no private key"):
        stages.check_services(stages.RunConfig(load_params("demo"), settings))
    assert len(aliases.history("mirnet", settings)) == 1, "everybody may look"


def test_unsigned_is_a_setting_and_a_wrong_signature_is_not(site: Site) -> None:
    settings = without_keys(site, allow=True)
    for seed in (1, 2):
        aliases.promote(site.register(seed), why="x", settings=settings)
    assert not registry.get_version("models:/mirnet/2", settings).signed
    assert site.pin(settings) == "models:/mirnet/2"
    with pytest.raises(UntrustedModel, match="mirnet version 2 has no signature"):
        site.pin()
    # an alias moved by hand and a version without a digest are refused all the same
    site.hand("champion", site.register(3).version)
    with pytest.raises(UntrustedModel, match="by its history it is version 2"):
        site.pin(settings)
    site.hand("champion", "2")
    site.client.delete_model_version_tag("mirnet", "2", DIGEST_TAG)
    with pytest.raises(WeightsError, match="no digest of its weights"):
        site.pin(settings)
    with_key = site.settings.model_copy(update={"allow_unsigned": True})
    site.client.set_model_version_tag("mirnet", "1", SIGNATURE_TAG, "{}")
    with pytest.raises(UntrustedModel, match="signature is damaged"):
        registry.resolve("models:/mirnet/1", with_key)


def test_a_registry_from_before_is_refused_with_what_signs_it(site: Site) -> None:
    site.promote(1, 2)
    site.forget_signatures()
    with pytest.raises(UntrustedModel, match="`mirnet registry sign"):
        site.pin()
    told = audit.sign("mirnet", site.settings)
    assert told[:2] == [
        "mirnet version 1: 3 files signed, gate: promote",
        "mirnet version 2: 3 files signed, gate: promote",
    ]
    assert site.pin() == "models:/mirnet/2"
    assert audit.sign("mirnet", site.settings) == []
    assert all(not found.problems for found in audit.examine("mirnet", site.settings))
    aliases.rollback("mirnet", why="works as ever", settings=site.settings)
    assert site.pin() == "models:/mirnet/1"


def test_signing_what_is_from_before_takes_the_proof(site: Site) -> None:
    site.promote(1, 2)
    site.forget_signatures()
    site.hand("champion", site.register(3).version)
    with pytest.raises(UntrustedModel, match="no move in `mirnet registry history` put it there"):
        audit.sign("mirnet", site.settings)
    with pytest.raises(UntrustedModel, match="neither the gate nor a person decided"):
        audit.sign("mirnet", site.settings, "models:/mirnet/3")
    site.hand("champion", "2")
    native = registry.fetch("models:/mirnet/2", site.settings)
    (native / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match="not those that were registered"):
        audit.sign("mirnet", site.settings)
    assert not registry.get_version("models:/mirnet/2", site.settings).signed


def test_a_promotion_on_a_registry_from_before_keeps_its_previous(site: Site) -> None:
    site.promote(1)
    site.forget_signatures()
    site.promote(2)
    assert site.held() == {"champion": "2", "previous": "1"}
    assert site.pin() == "models:/mirnet/2"
    with pytest.raises(UntrustedModel, match="registry sign models:/mirnet/1"):
        aliases.rollback("mirnet", why="x", settings=site.settings)
    audit.sign("mirnet", site.settings, "models:/mirnet/1")
    aliases.rollback("mirnet", why="x", settings=site.settings)
    assert site.pin() == "models:/mirnet/1"


def test_the_id_of_a_model_is_no_path(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registry.RegisteredVersion("m", "1", None, "../../outside", "READY", 0.0)

    def download(_location: str, _settings: Settings, target: Path) -> Path:
        (target / "native").mkdir()
        return target / "native"

    monkeypatch.setattr(registry, "download", download)
    folder = registry._cached("s3://x", version, site.settings)
    assert folder.parent == site.settings.workspace / "cache" / "models"
