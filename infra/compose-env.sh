#!/bin/sh
# Prints random secrets for compose.yaml: infra/compose-env.sh > infra/.env
set -eu
umask 077
for name in \
  POSTGRES_PASSWORD POSTGRES_PREFECT_PASSWORD POSTGRES_MLFLOW_PASSWORD \
  PREFECT_PASSWORD MLFLOW_ADMIN_PASSWORD MLFLOW_PIPELINE_PASSWORD MLFLOW_SESSION_KEY RAY_TOKEN \
  S3_ADMIN_KEY S3_ADMIN_SECRET S3_MLFLOW_KEY S3_MLFLOW_SECRET \
  S3_PIPELINE_KEY S3_PIPELINE_SECRET S3_INTERNAL_KEY
do
  printf '%s=%s\n' "$name" "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
done
