#!/usr/bin/env bash
# Dashboards, alarms and alerts: names against the pages of metrics, alerts under promtool, the stack in moto.
#
# usage: run.sh [PYTEST-ARGUMENTS...]
#
# Makes a Python environment in the cache folder once. Needs promtool on the PATH: `tests/e2e/tools/install.sh promtool`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v promtool >/dev/null || { echo "dashboards tests: promtool is missing; tests/e2e/tools/install.sh promtool builds it" >&2; exit 1; }
python=$("$here/../../.ci/python-env" dashboards "$here/requirements.txt")
export PYTHONDONTWRITEBYTECODE=1
exec "$python" -m pytest -p no:cacheprovider -q "$@" "$here"
