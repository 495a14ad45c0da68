#!/usr/bin/env bash
# What .venv cannot bring along: Python 3.11+ with its venv module, and Maven (with a Java) to fetch Kafka's jars.
# Installs them on Debian as root; elsewhere stops with the command to run.
set -euo pipefail
python=${1:-python3}

missing=()
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "Isthmus needs Python 3.11 or newer, and \`$python\` is not. Say which to use: make PYTHON=python3.12 ..." >&2
  exit 1
}
"$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
# An outside Kafka needs no jars.
if [[ -z ${KAFKA_BOOTSTRAP_SERVERS:-} ]]; then
  command -v java >/dev/null || missing+=(default-jre-headless)
  command -v mvn >/dev/null || missing+=(maven)
fi
((${#missing[@]})) || exit 0

if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
  echo "installing ${missing[*]}"
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  if { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    rm "$log"
    exit 0
  fi
  tail -n 20 "$log" >&2
  echo "apt-get could not install ${missing[*]}; see $log. Install them, then run make again." >&2
elif command -v apt-get >/dev/null; then
  echo "Some system packages are missing. Run: sudo apt-get install ${missing[*]}" >&2
elif command -v brew >/dev/null; then
  echo "Some tools are missing. Run: brew install maven openjdk@21" >&2
else
  echo "Please install with your package manager: Python's venv module, Java 17 or newer, Maven 3.6 or newer." >&2
fi
exit 1
