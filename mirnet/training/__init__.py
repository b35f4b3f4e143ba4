"""Training: losses, schedules, the loop, checkpoints, and what launches it.

Only :mod:`mirnet.training.ray` knows Ray; the loop sees a
:class:`~mirnet.training.context.Context`.
"""

from __future__ import annotations

from mirnet.results import TrainResult
from mirnet.training.request import Listener, TrainingEvent, TrainRequest

__all__ = ["IN_PROCESS", "Listener", "TrainRequest", "TrainingEvent", "train_model"]

IN_PROCESS = "in-process"


def train_model(request: TrainRequest, listener: Listener = Listener()) -> TrainResult:
    """Train, and write the best model by validation PSNR to ``request.model_dir``.

    Raises:
        UsageError: settings that cannot work, such as a batch that the workers cannot share.
        DataError: a pair is missing or smaller than a patch; names the pair.
        TrainingError: training failed, or the run name belongs to another recipe.
        WeightsError: ``init_from`` or ``distill_from`` cannot be used; names the file.
        ServiceError: Ray or the checkpoint store cannot be reached; names the address.
    """
    from mirnet.training.launch import launch

    return launch(request, listener)
