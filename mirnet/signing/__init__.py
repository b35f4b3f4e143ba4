"""Signatures: keys, the signed statement of a model package, digests of folders.

ECDSA on P-256 with SHA-256. Nothing here knows MLflow.
"""
