"""Buckets and identities of the stack's S3 server, created with SeaweedFS's shell."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from mirnet.errors import ServiceError
from mirnet.stack.plan import StackPlan
from mirnet.storage.s3server import keys_folder, shell_argv

_ACTIONS = "Read,Write,List,Tagging"


@dataclass(frozen=True)
class Identity:
    """A key pair, and the buckets it may access."""

    name: str
    access_key: str
    secret_key: str = field(repr=False)
    buckets: tuple[str, ...] = ()


def set_up(
    program: str,
    plan: StackPlan,
    folder: Path,
    environment: dict[str, str],
    buckets: tuple[str, ...],
    identities: tuple[Identity, ...],
) -> None:
    """Create the buckets, and identities with access to their own buckets only. Idempotent.

    The commands go through standard input, so that no secret is in a command line.

    Raises:
        ServiceError: the shell fails or a bucket is missing afterwards.
    """
    commands = [f"s3.bucket.create -name={bucket}" for bucket in buckets]
    commands += [
        f"s3.configure -user={who.name} -access_key={who.access_key} -secret_key={who.secret_key} "
        f"-buckets={','.join(who.buckets)} -actions={_ACTIONS} -apply"
        for who in identities
    ]
    try:
        done = subprocess.run(
            shell_argv(program, plan.ports, keys=keys_folder(folder)),
            input="\n".join([*commands, "s3.bucket.list", ""]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError("the S3 server's shell does not answer") from error
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    real = [line for line in errors if "already exists" not in line]
    if real:
        raise ServiceError(f"the S3 server's shell: {real[0].removeprefix('error: ')}")
    listed = {line.split()[0] for line in done.stdout.splitlines() if "size:" in line}
    missing = sorted(set(buckets) - listed)
    if missing:
        raise ServiceError(f"the S3 server has no bucket {', '.join(missing)} yet")
