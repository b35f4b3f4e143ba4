"""The protocol on S3 servers that share no code with the one of the other tests."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mirnet.config import Settings, environment
from tests.batch import test_kills as kills, test_lease as leases
from tests.batch.samples import enhance_batch, fill, picture
from tests.ceph_server import CephServer
from tests.storage import test_stores as stores

BUCKET = "test"
# with the places of this module
test_put_get_head_delete = stores.test_put_get_head_delete
test_conditional_writes = stores.test_conditional_writes
test_of_many_writers_one_wins = stores.test_of_many_writers_one_wins
test_list_and_child = stores.test_list_and_child
test_copies = stores.test_copies_keep_bytes_and_take_metadata
test_second_is_refused = leases.test_second_is_refused_and_told_by_whom
test_holder_notices_a_takeover = leases.test_holder_notices_a_takeover
test_a_retry_need_not_wait = leases.test_a_retry_in_the_same_process_need_not_wait
test_what_was_given_back = leases.test_what_was_given_back_allows_no_more_writes


@pytest.fixture(scope="module")
def moto() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    variables = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "MIRNET_S3_ENDPOINT_URL": url,
    }
    with environment(**variables):
        boto3.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
    yield variables
    server.stop()


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with CephServer(tmp_path_factory.mktemp("ceph"), bucket=BUCKET) as server:
        yield server.environment


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.slow)])
def variables(request: pytest.FixtureRequest) -> dict[str, str]:
    found: dict[str, str] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def places(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    base = f"s3://{BUCKET}/{uuid4().hex}"
    return f"{base}/source", f"{base}/target"


def test_nights(places: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """New, unchanged, changed: the first replaces no object, the last does."""
    # renewed every quarter of a second, though the lease is long enough for a busy machine
    monkeypatch.setattr("mirnet.batch.lease._RENEWALS_A_LEASE", 240)
    fill(places[0], {f"{n}.png": picture(n) for n in range(6)})
    settings = Settings()
    first = enhance_batch(*places, settings)
    assert (first.enhanced, first.failed) == (6, 0)
    again = enhance_batch(*places, settings)
    assert (again.planned, again.skipped) == (6, 6)
    fill(places[0], {"3.png": picture(77)})
    last = enhance_batch(*places, settings)
    assert (last.enhanced, last.skipped, last.failed) == (1, 5, 0)


@pytest.mark.slow
def test_kills(places: tuple[str, str], variables: dict[str, str]) -> None:
    kills.test_kill_9_at_random_moments(8, places, variables)


@pytest.mark.slow
def test_jobs_at_once(places: tuple[str, str], variables: dict[str, str]) -> None:
    kills.test_jobs_at_once_on_one_target(4, places, variables)
