"""Batches of images over object storage and folders: plan, enhance, commit."""
