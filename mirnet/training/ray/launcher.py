"""The loop on Ray Train: workers, checkpoints, restarts, and epochs back to the caller."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import ray
import ray.exceptions
import ray.train
import torch
from pyarrow import fs
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Empty, Queue

from mirnet.config import Settings
from mirnet.errors import MirnetError, ServiceError, TrainingError, last_line
from mirnet.logs import protect_output
from mirnet.params import TrainParams
from mirnet.ray_session import ray_session
from mirnet.results import EpochMetrics
from mirnet.signals import stop_if_asked
from mirnet.storage.arrow import open_filesystem, uri_of
from mirnet.training.job import Job, JobOutcome
from mirnet.training.loop import fit
from mirnet.training.ray.nodes import check_shared, on_this_node
from mirnet.training.ray.shared_job import share_job, shared_bytes
from mirnet.training.request import Listener, LogForwarder, TrainingEvent
from mirnet.training.workers import Workers

logger = logging.getLogger(__name__)


def launch_training(
    job: Job, *, settings: Settings, run_name: str, listener: Listener
) -> JobOutcome:
    """Run the loop on ``settings.num_workers`` Ray workers.

    ``listener.on_epoch`` is called in the controller's process, the others in this one.

    Raises:
        ServiceError: Ray or the checkpoint store does not answer; names the address.
        TrainingError: the workers failed, more often than restarts are allowed.
    """
    least, most = settings.worker_range
    filesystem, path = open_filesystem(settings)
    local = isinstance(filesystem, fs.LocalFileSystem)
    num_cpus = max(os.cpu_count() or 1, most)
    with ray_session(settings, num_cpus=num_cpus, object_store_bytes=shared_bytes(job)):
        check_shared(filesystem, path)
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        if 0 < num_gpus < least:
            least = most = workers_for(num_gpus, job.params.train)
            logger.warning("%d GPUs: training on %d workers, not on CPUs", num_gpus, most)
        shared = share_job(job, settings, filesystem, path)
        event_queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "job": shared,
                "event_queue": event_queue,
                "emit_events": listener.on_event is not None,
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=most if least == most else (least, most),
                use_gpu=num_gpus >= least,
            ),
            run_config=ray.train.RunConfig(
                name=run_name,
                storage_path=path,
                storage_filesystem=None if local else filesystem,
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                failure_config=ray.train.FailureConfig(max_failures=settings.max_restarts),
                callbacks=[EpochCallback(event_queue, listener.on_epoch)],
            ),
        )
        try:
            result = _fit_in_thread(trainer, event_queue, listener)
        except ray.train.TrainingFailedError as error:
            raise TrainingError(_first_reason(error, settings.max_restarts)) from error
        except ray.exceptions.RayError as error:
            reason = last_line(str(error)) or repr(error)
            raise TrainingError(f"Ray lost the training run: {reason}") from error
    answer = result.return_value or {}
    if "error" in answer:
        raise TrainingError(answer["error"])
    if result.checkpoint is None:
        raise TrainingError(f"run {run_name} ended without a checkpoint")
    uri = uri_of(filesystem, f"{path}/{run_name}")
    return JobOutcome(answer.get("num_workers", most), uri, _local_folder(result.checkpoint))


def workers_for(num_gpus: int, recipe: TrainParams) -> int:
    """The maximum number of workers with one GPU each that divides all global batches."""
    sizes = (recipe.batch_size, *(stage.batch_size for stage in recipe.progressive))
    return max(n for n in range(1, num_gpus + 1) if all(size % n == 0 for size in sizes))


def _fit_in_thread(
    trainer: TorchTrainer, event_queue: Queue, listener: Listener
) -> ray.train.Result:
    """Run to the end; pass events of workers and controller on to the listener.

    In the main thread Ray Train would take over Ctrl-C and exit the process.
    """
    outcome: Future[ray.train.Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(trainer.fit())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            outcome.set_exception(error)

    Thread(target=run, name="ray-train", daemon=True).start()
    while not outcome.done() or not event_queue.empty():
        stop_if_asked()
        with suppress(Empty):
            listener.hear(event_queue.get(timeout=0.5))
    return outcome.result()


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a worker. Errors that a restart cannot fix are returned, not raised."""
    context = RayContext(config["event_queue"], emit_events=config["emit_events"])
    context.share_cores()
    try:
        with context.log_to_driver():
            fit(context, config["job"].open())
    except ServiceError:
        raise  # only this worker may be affected, and the others wait for it
    except MirnetError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise  # likewise
        return {"error": str(error), "num_workers": context.world_size}
    return {"num_workers": context.world_size}


def _cpus_of_node() -> int:
    """CPUs that this Ray node offers; at least one."""
    here = ray.get_runtime_context().get_node_id()
    offered = (n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["NodeID"] == here)
    return max(1, int(sum(offered)))


class RayContext(Workers):
    def __init__(self, event_queue: Queue, *, emit_events: bool) -> None:
        train_context = ray.train.get_context()
        self._event_queue, self._emits_events = event_queue, emit_events
        self._uploading: Path | None = None
        self.rank: int = train_context.get_world_rank()
        self.world_size: int = train_context.get_world_size()
        self.local_rank: int = train_context.get_local_rank()
        self.node: str = ray.util.get_node_ip_address()
        self._local_world_size: int = train_context.get_local_world_size()
        self.device: torch.device = get_device()

    def share_cores(self) -> None:
        """Divide the cores of this Ray node among its workers.

        A machine may have several nodes, each with a part of its cores: threads of all workers on
        all cores wait for each other at each operation.
        """
        cores = min(len(os.sched_getaffinity(0)), _cpus_of_node())
        torch.set_num_threads(max(1, cores // self._local_world_size))

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with _local_folder(checkpoint) as folder:
            yield folder

    def report(self, metrics: EpochMetrics | None, checkpoint: Path | None) -> None:
        """Publish an epoch; the checkpoint is uploaded while training goes on.

        One at a time: if the store is slower than the steps, they wait for it.
        """
        if checkpoint is not None:
            while self._uploading is not None and self._uploading.exists():
                time.sleep(0.05)  # Ray deletes uploaded folders, and ends the worker on a failure
            self._uploading = checkpoint
        ray.train.report(
            {"epoch": metrics.model_dump(mode="json") if metrics else None},
            checkpoint=ray.train.Checkpoint.from_directory(checkpoint) if checkpoint else None,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        )

    def emit(self, events: Sequence[TrainingEvent]) -> None:
        if self._emits_events and events:
            self._event_queue.put_nowait_batch(list(events))

    @contextmanager
    def log_to_driver(self) -> Iterator[None]:
        """Send the log lines of the first worker to the driver."""
        protect_output()
        if self.rank != 0:
            yield
            return
        ours, handler = logging.getLogger("mirnet"), LogForwarder(self._event_queue.put_nowait)
        ours.setLevel(logging.INFO)
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)


class EpochCallback(ray.train.UserCallback):  # type: ignore[misc]
    """Passes each epoch to the driver and to ``on_epoch``, in the controller's process."""

    def __init__(self, event_queue: Queue, on_epoch: Callable[[EpochMetrics], None] | None) -> None:
        self._event_queue = event_queue
        self._on_epoch = on_epoch

    def after_report(
        self,
        run_context: object,  # noqa: ARG002
        metrics: list[dict[str, Any]],
        checkpoint: object,  # noqa: ARG002
    ) -> None:
        """Called by Ray after all workers have reported."""
        values = metrics[0].get("epoch")
        if values is None:
            return
        epoch = EpochMetrics.model_validate(values)
        self._event_queue.put(epoch)
        if self._on_epoch is not None:
            self._on_epoch(epoch)


@contextmanager
def _local_folder(checkpoint: ray.train.Checkpoint) -> Iterator[Path]:
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _first_reason(error: ray.train.TrainingFailedError, restarts: int) -> str:
    """The last line of the first worker's error, which names the cause."""
    failures = getattr(error, "worker_failures", {})
    cause = next(iter(failures.values()), error)
    reason = last_line(str(cause)) or repr(cause)
    return f"training failed after {restarts} restarts: {reason}"
