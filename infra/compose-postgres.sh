#!/bin/sh
# A role and a database for each client; run once by the image when the volume is empty.
set -eu
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<SQL
CREATE ROLE prefect LOGIN PASSWORD '$PREFECT_PASSWORD';
CREATE DATABASE prefect OWNER prefect;
REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
CREATE ROLE mlflow LOGIN PASSWORD '$MLFLOW_PASSWORD';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
SQL
