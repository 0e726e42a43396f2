#!/usr/bin/env bash
# The operator against moto as CloudWatch, with boto3 as the reader. Needs an API server (ENIPOOL_TEST_KUBECONFIG, whose
# objects may be changed), kubectl, and the programs OPERATOR_BIN and EC2_SIM_BIN: `make test-cloudwatch` has them all.
#
# usage: run.sh [PYTEST-ARGUMENTS...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
: "${OPERATOR_BIN:?}" "${EC2_SIM_BIN:?}"
export KUBECONFIG=${ENIPOOL_TEST_KUBECONFIG:?"an API server whose objects may be changed"}
python=$("$root/.ci/python-env" wire "$root/ec2-sim/tests/wire/requirements.txt")
export PYTHONDONTWRITEBYTECODE=1
exec "$python" -m pytest -p no:cacheprovider -q "$@" "$here"
