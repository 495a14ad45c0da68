#!/usr/bin/env bash
# For docker-compose.yml: adds to .env the random secrets that it does not have yet, and writes deploy/compose/clients.json
# anew from it.
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 077
# Hexadecimal: safe inside a URL.
random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
key() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }
touch .env
add() { grep -q "^$1=" .env || echo "$1=$2" >> .env; }
add POSTGRES_PASSWORD "$(random 24)"
add SERVICE_DATABASE_PASSWORD "$(random 24)"
add PAYMENTS_API_KEY "sk_local_$(random 24)"
add PAYMENTS_WEBHOOK_SECRET "whsec_$(key)"
add CARRIER_API_KEY "sk_local_$(random 24)"
add CARRIER_WEBHOOK_SECRET "whsec_$(key)"
add FINGERPRINT_KEY "$(key)"
add MASTER_KEY "$(key)"
for client in DEMO ORDER NOTIFY; do add "${client}_CLIENT_SECRET" "$(random 24)"; done
secret() { sed -n "s/^$1_CLIENT_SECRET=//p" .env; }
cat > deploy/compose/clients.json <<END
[{"client_id": "demo", "client_secret": "$(secret DEMO)", "scopes": ["orders:read", "orders:write", "orders:import",
  "items:read", "items:write", "stock:read", "stock:write", "customers:read", "customers:write", "recipients:read",
  "contacts:read", "prices:read", "prices:write", "care:read", "ledger:read", "holdings:read", "admin"]},
 {"client_id": "order", "client_secret": "$(secret ORDER)", "scopes": ["recipients:read", "holdings:read"]},
 {"client_id": "notify", "client_secret": "$(secret NOTIFY)", "scopes": ["contacts:read"]}]
END
chmod 644 deploy/compose/clients.json # the container's user is not its owner
