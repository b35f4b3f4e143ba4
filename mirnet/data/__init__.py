"""Pairs on disk: layout, sample data, manifest, validation, splits, version, loading.

Nothing is imported here: pandas, Great Expectations and DVC cost seconds each.
"""
