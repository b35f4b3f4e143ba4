"""Object stores and local folders behind one protocol; the S3 server of demo and tests."""
