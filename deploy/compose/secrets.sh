#!/usr/bin/env bash
# Writes .env with random secrets and deploy/compose/clients.json for docker-compose.yml; leaves existing files alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 077
# Hexadecimal: safe inside a URL.
random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
key() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }
[[ -e .env ]] || cat > .env <<END
POSTGRES_PASSWORD=$(random 24)
SERVICE_DATABASE_PASSWORD=$(random 24)
PAYMENTS_API_KEY=sk_local_$(random 24)
PAYMENTS_WEBHOOK_SECRET=whsec_$(key)
FINGERPRINT_KEY=$(key)
MASTER_KEY=$(key)
END
if [[ ! -e deploy/compose/clients.json ]]; then
  cat > deploy/compose/clients.json <<END
[{"client_id": "demo", "client_secret": "$(random 24)", "scopes": ["orders:read", "orders:write", "orders:import",
  "items:read", "items:write", "stock:read", "stock:write", "customers:read", "customers:write", "prices:read",
  "prices:write", "care:read", "admin"]}]
END
  chmod 644 deploy/compose/clients.json # the container's user is not its owner
fi
