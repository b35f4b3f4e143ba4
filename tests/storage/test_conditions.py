"""Stores that ignore or misread the conditions of writes, emulated on a real S3 server by changing
the requests before they are signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from mirnet.batch.lease import Lease
from mirnet.batch.ledger import Ledger
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.storage import s3session
from mirnet.storage.places import open_store
from mirnet.storage.s3 import S3Store
from tests.batch.samples import enhance_batch, fill, picture

Change = Callable[[Any], None]


def spoil(store: S3Store, change: Change) -> list[str]:
    """Apply to each PUT of an object; the requests that are sent."""
    sent: list[str] = []

    def before_sign(request: Any, **_: Any) -> None:
        change(request.headers)

    store._client.meta.events.register("before-sign.s3.PutObject", before_sign)
    store._client.meta.events.register(
        "before-send.s3", lambda request, **_: sent.append(request.method)
    )
    return sent


def without(name: str) -> Change:
    def change(headers: Any) -> None:
        del headers[name]

    return change


def as_ceph_16(headers: Any) -> None:
    """Compares If-Match with the ETag without removing the quotes first."""
    tag = headers.get("If-Match")
    if tag is not None:
        headers.replace_header("If-Match", '"0"' if tag.startswith('"') else f'"{tag}"')


def as_lax_ceph_16(headers: Any) -> None:
    """Ignores an ETag without quotes, and refuses any with."""
    tag = headers.get("If-Match")
    if tag is not None and tag.startswith('"'):
        headers.replace_header("If-Match", '"0"')
    else:
        del headers["If-Match"]


def never(headers: Any) -> None:
    if "If-Match" in headers:
        headers.replace_header("If-Match", '"0"')


@pytest.fixture
def store(s3: str) -> S3Store:
    store = open_store(f"{s3}/target", Settings())
    assert isinstance(store, S3Store)
    return store


@pytest.mark.parametrize("name", ["If-None-Match", "If-Match"])
def test_a_store_that_ignores_a_condition_is_refused(
    name: str, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(f"{s3}/source", {"a.png": picture()})
    make = s3session.make_client

    def spoiled(connection: Any) -> Any:
        client = make(connection)
        spoil(S3Store(client, "test", "", ""), without(name))
        return client

    with monkeypatch.context() as patch:
        patch.setattr(s3session, "make_client", spoiled)
        with pytest.raises(StorageError, match=rf"_mirnet: this store ignores {name} of") as no:
            enhance_batch(f"{s3}/source", f"{s3}/target")
    assert not no.value.transient
    left = {info.key for info in open_store(f"{s3}/target", Settings()).list()}
    assert left == {"_mirnet/lease.json"}
    lease = json.loads(open_store(f"{s3}/target", Settings()).get("_mirnet/lease.json").data)
    assert lease["released"]


def test_the_check_costs_two_requests_and_writes_nothing(store: S3Store) -> None:
    with Lease(Ledger(store), lease_s=60) as lease:
        before = store.head("lease.json")
        sent = spoil(store, lambda _: None)
        assert store.ignored_condition("lease.json", lease.entry.dump()) is None
        assert sent == ["PUT", "PUT"]
        assert store.head("lease.json") == before


def test_a_server_that_wants_etags_without_quotes_gets_them(store: S3Store) -> None:
    store.put("k", b"one")
    sent = spoil(store, as_ceph_16)
    child = store.child("runs")
    for data in (b"two", b"three"):
        head = store.head("k")
        assert head is not None
        del sent[:]
        assert store.put("k", data, replaces=head.version)
    assert sent == ["PUT"], "once is enough"
    assert store.put("k", b"x", replaces=head.version) is None
    assert store.get("k").data == b"three"
    version = child.put("c", b"1")
    assert child.put("c", b"2", replaces=version)
    for _ in range(2):
        with Lease(Ledger(store), lease_s=60) as lease:
            lease.check()


def test_the_check_sends_etags_in_the_form_of_the_server(store: S3Store) -> None:
    version = store.put("k", b"one")
    spoil(store, as_lax_ceph_16)
    assert store.put("k", b"two", replaces=version)
    assert store.ignored_condition("k", b"two") == "If-Match"


def test_a_store_that_refuses_a_condition_that_holds_is_named(store: S3Store) -> None:
    with Lease(Ledger(store), lease_s=60):
        pass
    spoil(store, never)
    with pytest.raises(StorageError, match="refuses a write on the condition that holds"):
        Lease(Ledger(store), lease_s=60).__enter__()


def test_a_store_without_conditions_is_one_line(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "Error": {"Code": "NotImplemented", "Message": "A header you provided implies ..."},
        "ResponseMetadata": {"HTTPStatusCode": 501},
    }

    def refuse(**_: object) -> None:
        raise store._client.exceptions.ClientError(answer, "PutObject")

    monkeypatch.setattr(store._client, "put_object", refuse)
    with pytest.raises(StorageError, match="needed are conditional writes") as no:
        Lease(Ledger(store), lease_s=60).__enter__()
    assert not no.value.transient


@pytest.mark.parametrize(("written_s", "age_s"), [(-150, 149), (0, 0), (150, -150)])
def test_the_age_of_an_object_is_negative_after_a_clock_was_set_back(
    written_s: int, age_s: float, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("k", b"x")
    answer = store._client.head_object(Bucket="test", Key=f"{store.prefix}k")
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    answer["LastModified"] = now.replace(tzinfo=UTC) + timedelta(seconds=written_s)
    monkeypatch.setattr(store._client, "head_object", lambda **_: answer)
    head = store.head("k")
    assert head is not None
    assert head.age_s == age_s
