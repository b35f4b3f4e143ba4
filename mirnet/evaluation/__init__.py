"""Metrics, baselines, scoring, the report and the promotion gate. Knows nothing of MLflow."""
