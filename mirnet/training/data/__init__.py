"""From pairs on disk to batches on a device."""
