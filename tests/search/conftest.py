"""The pairs and short recipes of the training tests."""

from tests.training.conftest import pairs_dir, small_params, train_ids, val_ids

__all__ = ["pairs_dir", "small_params", "train_ids", "val_ids"]
