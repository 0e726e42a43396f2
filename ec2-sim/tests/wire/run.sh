#!/usr/bin/env bash
# The simulator's wire protocols against boto3 (as client) and moto (as a second server).
#
# usage: run.sh [PYTEST-ARGUMENTS...]
#
# Builds ec2-sim (or takes EC2_SIM_BIN), makes a Python environment in the cache folder once, starts
# both servers on free ports, runs pytest, stops them again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)

if [ -z "${EC2_SIM_BIN:-}" ]; then
    echo "wire tests: building ec2-sim"
    (cd "$root" && cargo build --quiet -p ec2-sim)
    EC2_SIM_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ec2-sim
fi
[ -x "$EC2_SIM_BIN" ] || { echo "wire tests: $EC2_SIM_BIN is not a program; set EC2_SIM_BIN" >&2; exit 1; }
export EC2_SIM_BIN

python=$("$root/.ci/python-env" wire "$here/requirements.txt")
export PYTHONDONTWRITEBYTECODE=1
exec "$python" -m pytest -p no:cacheprovider -q "$@" "$here"
