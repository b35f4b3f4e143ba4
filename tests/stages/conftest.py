"""The pairs and short recipes of the training tests."""

from tests.training.conftest import in_process, pairs_dir, small_params, train_ids, val_ids

__all__ = ["in_process", "pairs_dir", "small_params", "train_ids", "val_ids"]
