"""Metrics, baselines, scoring, the report and the promotion gate; independent of MLflow."""
