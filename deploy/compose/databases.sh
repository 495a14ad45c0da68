#!/bin/bash
# Run once by the postgres image on an empty volume: a role and a database of its own for each service.
set -euo pipefail
for name in order inventory customer pricing notify; do
  psql -v ON_ERROR_STOP=1 -v name="$name" -v password="$SERVICE_DATABASE_PASSWORD" -U "$POSTGRES_USER" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
