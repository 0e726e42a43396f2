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
cache=${ENIPOOL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/enipool}

if [ -z "${EC2_SIM_BIN:-}" ]; then
    echo "wire tests: building ec2-sim"
    (cd "$root" && cargo build --quiet -p ec2-sim)
    EC2_SIM_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ec2-sim
fi
[ -x "$EC2_SIM_BIN" ] || { echo "wire tests: $EC2_SIM_BIN is not a program; set EC2_SIM_BIN" >&2; exit 1; }
export EC2_SIM_BIN

# Named by its contents: a change of requirements makes a new one. Two runs at once wait for each other.
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "wire tests: $python is missing (Debian: python3 python3-venv)" >&2; exit 1; }
venv=$cache/wire-$(cat "$here/requirements.txt" <("$python" --version) | sha256sum | cut -c1-12)
mkdir -p "$cache"
exec 9>"$venv.lock"
flock 9
if [ ! -e "$venv/complete" ]; then
    echo "wire tests: installing boto3, moto and pytest into $venv (a minute or two, once)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    touch "$venv/complete"
fi
flock -u 9

export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m pytest -p no:cacheprovider -q "$@" "$here"
