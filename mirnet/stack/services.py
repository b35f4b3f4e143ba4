"""The services of a stack: commands, environments, health checks and dependencies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mirnet import extras
from mirnet.config import child_environment, engine_defaults
from mirnet.signing.keys import PRIVATE, PUBLIC
from mirnet.stack import objects, postgres
from mirnet.stack.mlflow_user import create_user
from mirnet.stack.plan import BUCKETS, Secrets, StackPaths, StackPlan
from mirnet.stack.probes import Probe, basic, bearer, http_probe
from mirnet.storage import s3server

WORK_POOL = "mirnet"
# Every node of the Ray cluster has its own loopback address, like a host.
RAY_HEAD = "127.0.0.2"
LOOPBACK = "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,localhost"


@dataclass(frozen=True)
class Service:
    """One supervised process and its children."""

    name: str
    argv: tuple[str, ...]
    probe: Probe
    env: dict[str, str] = field(default_factory=dict, repr=False)
    after: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    setup: Callable[[], None] | None = None
    owner: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    address: str = ""


def services(home: StackPaths, plan: StackPlan, secrets: Secrets) -> list[Service]:
    """All services of a plan, in the order in which they can start."""
    database = [_postgres(home, plan, secrets)] if plan.database == "postgres" else []
    nodes = [_ray_node(plan, secrets, number) for number in range(1, plan.num_nodes + 1)]
    return [
        *database,
        _s3(home, plan, secrets),
        _mlflow(home, plan, secrets),
        _prefect_server(home, plan, secrets),
        _ray_head(plan, secrets),
        *nodes,
        _prefect_worker(home, plan, secrets),
    ]


def client_environment(home: StackPaths, plan: StackPlan, secrets: Secrets) -> dict[str, str]:
    """Environment for clients of the stack: a shell, the worker and its flows. Has secrets."""
    # a `prefect` command in that shell would send usage data without the defaults
    return (
        engine_defaults()
        | _pipeline_keys(secrets)
        | {
            "AWS_ENDPOINT_URL": plan.url("s3"),
            "MIRNET_S3_ENDPOINT_URL": plan.url("s3"),
            "MIRNET_TRACKING_URI": plan.url("mlflow"),
            # the Jobs API: the driver runs on the cluster, its end cannot take a flow run with it
            "MIRNET_RAY_ADDRESS": plan.url("ray-dashboard"),
            "MIRNET_NUM_WORKERS": f"1-{plan.num_nodes}",
            "MIRNET_STORAGE_URI": "s3://training/checkpoints",
            "MIRNET_WORKSPACE": str(home.folder("workspace")),
            # `mirnet stack down` in that shell means this stack, wherever the shell is
            "MIRNET_STACK_HOME": str(home.root),
            "MIRNET_SIGNING_KEY": str(home.keys / PRIVATE),
            "MIRNET_TRUSTED_KEYS": str(home.keys / PUBLIC),
            "MIRNET_REPORTS_DIR": str(home.folder("reports")),
            "NO_PROXY": LOOPBACK,
            "PREFECT_API_URL": f"{plan.url('prefect')}/api",
            "PREFECT_API_AUTH_STRING": secrets.prefect_auth,
            # long enough for the restart of a server: 1 + 2 + ... + 64 s
            "PREFECT_CLIENT_MAX_RETRIES": "7",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.ray,
        }
    )


def _pipeline_keys(secrets: Secrets) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": secrets.s3_pipeline_key,
        "AWS_SECRET_ACCESS_KEY": secrets.s3_pipeline_secret,
        "AWS_REGION": "us-east-1",
        "MLFLOW_TRACKING_USERNAME": "pipeline",
        "MLFLOW_TRACKING_PASSWORD": secrets.mlflow_pipeline,
    }


def _python(*module_and_arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *module_and_arguments)


def _postgres(home: StackPaths, plan: StackPlan, secrets: Secrets) -> Service:
    cluster = postgres.cluster(home, plan)
    owners = {"prefect": secrets.postgres_prefect, "mlflow": secrets.postgres_mlflow}
    return Service(
        name="postgres",
        argv=cluster.argv,
        env=child_environment(),
        probe=lambda: cluster.problem(secrets.postgres),
        prepare=lambda: cluster.initialise(secrets.postgres),
        setup=lambda: cluster.create_databases(secrets.postgres, owners),
        owner=cluster.owner,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, then writes a checkpoint
        address=f"127.0.0.1:{cluster.port}",
    )


def _s3(home: StackPaths, plan: StackPlan, secrets: Secrets) -> Service:
    folder = home.folder("s3")
    program = extras.program("stack", "weed")
    admin = objects.Identity("admin", secrets.s3_admin_key, secrets.s3_admin_secret)
    identities = (
        objects.Identity("mlflow", secrets.s3_mlflow_key, secrets.s3_mlflow_secret, ("mlflow",)),
        objects.Identity(
            "pipeline",
            secrets.s3_pipeline_key,
            secrets.s3_pipeline_secret,
            tuple(bucket for bucket in BUCKETS if bucket != "mlflow"),
        ),
    )
    environment = child_environment(
        AWS_ACCESS_KEY_ID=admin.access_key,
        AWS_SECRET_ACCESS_KEY=admin.secret_key,
        # besides certificates, requests to the file and volume servers need a token
        WEED_JWT_FILER_SIGNING_KEY=secrets.s3_internal,
        WEED_JWT_FILER_SIGNING_READ_KEY=secrets.s3_internal,
        WEED_JWT_SIGNING_KEY=secrets.s3_internal,
        WEED_JWT_SIGNING_READ_KEY=secrets.s3_internal,
    )
    return Service(
        name="s3",
        argv=s3server.server_argv(program, folder, plan.ports),
        env=environment,
        probe=lambda: s3server.problem(plan.url("s3"), admin.access_key, admin.secret_key),
        prepare=lambda: s3server.prepare_folder(folder),
        setup=lambda: objects.set_up(program, plan, folder, environment, BUCKETS, identities),
        address=plan.url("s3"),
    )


def _mlflow(home: StackPaths, plan: StackPlan, secrets: Secrets) -> Service:
    folder = home.folder("mlflow")
    if plan.database == "postgres":
        login = f"mlflow:{secrets.postgres_mlflow}@127.0.0.1:{plan.ports['postgres']}"
        database = f"postgresql+psycopg2://{login}/mlflow"
    else:
        database = f"sqlite:///{folder}/mlflow.db"
    port = plan.ports["mlflow"]
    admin = basic(f"admin:{secrets.mlflow_admin}")
    api = f"{plan.url('mlflow')}/api/2.0/mlflow"

    def prepare() -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / "auth.ini").write_text(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = sqlite:///{folder}/auth.db\n"
            "admin_username = admin\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            "auth_cache_ttl_seconds = 60\n",
            encoding="utf-8",
        )

    return Service(
        name="mlflow",
        argv=(
            *_python("mlflow", "server"),
            "--app-name=basic-auth",
            "--artifacts-destination=s3://mlflow/artifacts",
            "--host=127.0.0.1",
            f"--port={port}",
            f"--allowed-hosts=127.0.0.1:{port},localhost:{port}",
            "--workers=1",
        ),
        env=child_environment(
            AWS_ACCESS_KEY_ID=secrets.s3_mlflow_key,
            AWS_SECRET_ACCESS_KEY=secrets.s3_mlflow_secret,
            AWS_REGION="us-east-1",
            MLFLOW_AUTH_ADMIN_PASSWORD=secrets.mlflow_admin,
            MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
            # in the environment, since command lines are readable for everybody
            MLFLOW_BACKEND_STORE_URI=database,
            MLFLOW_FLASK_SERVER_SECRET_KEY=secrets.mlflow_session,
            MLFLOW_S3_ENDPOINT_URL=plan.url("s3"),
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            NO_PROXY=LOOPBACK,
        ),
        probe=http_probe(f"{api}/experiments/search", headers=admin, body={"max_results": 1}),
        after=("postgres", "s3") if plan.database == "postgres" else ("s3",),
        prepare=prepare,
        setup=lambda: create_user(
            plan.url("mlflow"),
            admin_password=secrets.mlflow_admin,
            name="pipeline",
            password=secrets.mlflow_pipeline,
        ),
        address=plan.url("mlflow"),
    )


def _prefect_server(home: StackPaths, plan: StackPlan, secrets: Secrets) -> Service:
    folder = home.folder("prefect")
    if plan.database == "postgres":
        login = f"prefect:{secrets.postgres_prefect}@127.0.0.1:{plan.ports['postgres']}"
        database = f"postgresql+asyncpg://{login}/prefect"
    else:
        database = f"sqlite+aiosqlite:///{folder}/prefect.db"
    return Service(
        name="prefect-server",
        argv=(
            *_python("prefect", "server", "start"),
            "--host=127.0.0.1",
            f"--port={plan.ports['prefect']}",
        ),
        env=child_environment(
            NO_PROXY=LOOPBACK,
            PREFECT_HOME=str(folder),
            PREFECT_API_DATABASE_CONNECTION_URL=database,
            PREFECT_SERVER_API_AUTH_STRING=secrets.prefect_auth,
            # in memory, as by default, a restart of the server ends every run that holds a
            # place under a concurrency limit: its lease is gone, and Prefect cancels it
            PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=(
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            PREFECT_UI_API_URL=f"{plan.url('prefect')}/api",
        ),
        probe=http_probe(
            f"{plan.url('prefect')}/api/flows/count", headers=basic(secrets.prefect_auth), body={}
        ),
        after=("postgres",) if plan.database == "postgres" else (),
        prepare=lambda: folder.mkdir(exist_ok=True, mode=0o700),
        address=plan.url("prefect"),
    )


def _prefect_worker(home: StackPaths, plan: StackPlan, secrets: Secrets) -> Service:
    url = f"{plan.url('prefect')}/api/work_pools/{WORK_POOL}/workers/filter"
    return Service(
        name="prefect-worker",
        argv=(
            *_python("prefect", "worker", "start"),
            f"--pool={WORK_POOL}",
            "--type=process",
            "--name=stack",
            "--limit=3",
        ),
        env=child_environment(
            **client_environment(home, plan, secrets),
            PREFECT_HOME=str(home.folder("prefect")),
            PREFECT_WORKER_QUERY_SECONDS="3",
        ),
        probe=http_probe(
            url,
            headers=basic(secrets.prefect_auth),
            body={},
            accept=lambda found: any(worker["status"] == "ONLINE" for worker in found),
        ),
        after=("prefect-server", "mlflow", "s3"),
        address=f"pool {WORK_POOL}",
    )


def _ray_environment(plan: StackPlan, secrets: Secrets) -> dict[str, str]:
    programs = Path(sys.executable).parent
    return child_environment(
        # jobs call `python` by name: ours, not the machine's
        PATH=f"{programs}:{child_environment().get('PATH', '')}",
        # the nodes upload checkpoints to the bucket and log epochs to MLflow
        **_pipeline_keys(secrets),
        AWS_ENDPOINT_URL=plan.url("s3"),
        # no port: Ray has no option for these two, and serves them without authentication
        AUTOSCALER_METRIC_PORT="-1",
        DASHBOARD_METRIC_PORT="-1",
        GLOO_SOCKET_IFNAME="lo",
        NO_PROXY=LOOPBACK,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.ray,
        # likewise of the agent on each node, which would listen on all interfaces
        RAY_enable_metrics_collection="false",
    )


def _ray_argv(plan: StackPlan, host: str, agent: str, num_cpus: int) -> tuple[str, ...]:
    return (
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--block",
        "--disable-usage-stats",
        f"--node-ip-address={host}",
        f"--num-cpus={num_cpus}",
        "--object-store-memory=200000000",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--dashboard-agent-listen-port={plan.ports[agent]}",
    )


def _ray_head(plan: StackPlan, secrets: Secrets) -> Service:
    return Service(
        name="ray-head",
        argv=(
            *_ray_argv(plan, RAY_HEAD, "ray-agent-head", 0),
            "--head",
            f"--port={plan.ports['ray-gcs']}",
            f"--ray-client-server-port={plan.ports['ray-client']}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={plan.ports['ray-dashboard']}",
            f"--temp-dir={plan.run_dir}",
        ),
        env=_ray_environment(plan, secrets),
        probe=http_probe(f"{plan.url('ray-dashboard')}/api/version", headers=bearer(secrets.ray)),
        prepare=lambda: plan.run_dir.mkdir(exist_ok=True, mode=0o700),
        address=plan.url("ray-dashboard"),
    )


def _ray_node(plan: StackPlan, secrets: Secrets, number: int) -> Service:
    host = f"127.0.0.{number + 2}"

    def alive(answer: dict[str, dict[str, dict[str, list[dict[str, str]]]]]) -> bool:
        nodes = answer["data"]["result"]["result"]
        return any(node["node_ip"] == host and node["state"] == "ALIVE" for node in nodes)

    return Service(
        name=f"ray-node-{number}",
        argv=(
            *_ray_argv(plan, host, f"ray-agent-{number}", 1),
            f"--address={RAY_HEAD}:{plan.ports['ray-gcs']}",
        ),
        env=_ray_environment(plan, secrets),
        probe=http_probe(
            f"{plan.url('ray-dashboard')}/api/v0/nodes", headers=bearer(secrets.ray), accept=alive
        ),
        # one at a time: Ray gives a node 30 s to start, too little for two on a busy machine
        after=("ray-head",) if number == 1 else (f"ray-node-{number - 1}",),
        address=host,
    )
