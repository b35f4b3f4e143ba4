"""The whole stack on one machine without containers, as supervised processes.

PostgreSQL (SQLite where it is not installed), an S3 server, MLflow, Prefect server and worker, and
a Ray cluster of a head and two nodes: ``mirnet stack up``. Every server listens on loopback if its
engine supports it, requires credentials, and is restarted when it exits or hangs.
"""
