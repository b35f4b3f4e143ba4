"""Every fault at a rate of 20 percent, against the real server behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.images import decode
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server
from tests.batch.samples import MODEL, double, fill, picture
from tests.fault_proxy import FaultProxy

PICTURES = {f"{number}.png": picture(number, side=24) for number in range(6)}


@pytest.fixture
def direct(s3_server: S3Server) -> Settings:
    return Settings(s3_endpoint_url=s3_server.endpoint_url, s3_timeout_s=1, lease_s=30)


def run_through(proxy: FaultProxy, base: str, direct: Settings) -> EnhanceResult:
    return run_batch(
        f"{base}/in",
        f"{base}/out",
        enhance=double,
        model=MODEL,
        params=EnhanceParams(contact_images=0),
        settings=direct.model_copy(update={"s3_endpoint_url": proxy.url}),
    )


@pytest.fixture
def base(s3: str) -> Iterator[str]:
    fill(f"{s3}/in", PICTURES)
    yield s3


@pytest.mark.parametrize(
    "fault",
    [
        "throttle",
        "reset",
        "lost-answer",
        "cut",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("500", "503", "timeout", "slow")),
    ],
)
def test_passing_faults_lose_nothing(
    fault: str, base: str, direct: Settings, s3_server: S3Server
) -> None:
    with FaultProxy(s3_server.endpoint_url, fault, rate=0.2, seed=3) as proxy:
        result = run_through(proxy, base, direct)
        assert proxy.counts["faults"] > 0
        # undisturbed, this run makes about 30 requests: retries are bounded
        assert proxy.counts["requests"] < 100
    assert (result.planned, result.enhanced, result.failed) == (6, 6, 0)
    out = open_store(f"{base}/out", direct)
    for key, data in PICTURES.items():
        expected = double(decode(data, name=key)).pixels
        assert (decode(out.get(key).data, name=key).pixels == expected).all()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("expired", "the credentials have expired; renew them"),
        ("denied", "access denied; these credentials need s3:ListBucket"),
        ("no-bucket", "no such bucket; create it"),
    ],
)
def test_lasting_faults_stop_at_once(
    fault: str, words: str, base: str, direct: Settings, s3_server: S3Server
) -> None:
    with FaultProxy(s3_server.endpoint_url, fault, rate=1.0) as proxy:
        with pytest.raises(StorageError, match=words) as caught:
            run_through(proxy, base, direct)
        assert proxy.counts["requests"] == 1
    assert "\n" not in str(caught.value)
    assert not caught.value.transient
    assert proxy.url in str(caught.value)


def test_credentials_that_expire_in_the_middle_stop_the_run_and_the_next_one_ends_it(
    base: str, direct: Settings, s3_server: S3Server
) -> None:
    with FaultProxy(s3_server.endpoint_url, "expired", rate=0.0) as proxy:

        def enhance(image: object) -> object:
            proxy.rate = 1.0
            return double(image)  # type: ignore[arg-type]

        settings = direct.model_copy(update={"s3_endpoint_url": proxy.url})
        with pytest.raises(StorageError, match="expired"):
            run_batch(
                f"{base}/in",
                f"{base}/out",
                enhance=enhance,
                model=MODEL,
                params=EnhanceParams(),
                settings=settings.model_copy(update={"lease_s": 1}),
            )
        proxy.rate = 0.0
        result = run_through(proxy, base, direct)
    assert (result.planned, result.enhanced + result.skipped, result.failed) == (6, 6, 0)


def test_a_dead_server_is_one_line(s3: str) -> None:
    settings = Settings(s3_endpoint_url="http://127.0.0.1:9", s3_timeout_s=1)
    with pytest.raises(
        StorageError, match=r"127\.0\.0\.1:9: cannot connect.*AWS_ENDPOINT_URL"
    ) as caught:
        run_batch(
            s3,
            f"{s3}-out",
            enhance=double,
            model=MODEL,
            params=EnhanceParams(),
            settings=settings,
        )
    assert caught.value.transient


def test_a_target_that_cannot_be_written_is_one_line(
    base: str, direct: Settings, s3_server: S3Server
) -> None:
    with FaultProxy(s3_server.endpoint_url, "denied", rate=1.0, only="PUT") as proxy:
        with pytest.raises(StorageError, match="s3:PutObject on the target") as caught:
            run_through(proxy, base, direct)
        assert proxy.counts["faults"] == 1
    assert "\n" not in str(caught.value)
    assert f"{base}/out" in str(caught.value)
    assert not caught.value.transient


def test_what_is_done_costs_no_request_of_its_own(
    base: str, direct: Settings, s3_server: S3Server
) -> None:
    def requests_of_a_second_run() -> int:
        with FaultProxy(s3_server.endpoint_url, "500", rate=0.0) as proxy:
            run_through(proxy, base, direct)
            before = proxy.counts["requests"]
            assert run_through(proxy, base, direct).enhanced == 0
            return proxy.counts["requests"] - before

    few = requests_of_a_second_run()
    fill(f"{base}/in", {f"more/{number}.png": picture(number, side=24) for number in range(20)})
    # the manifests of the runs between
    assert requests_of_a_second_run() <= few + 4
