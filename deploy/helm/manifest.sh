#!/bin/sh
# Writes deploy/enipool.yaml: everything in one manifest for `kubectl apply --server-side -f`, from the chart with its
# default values. With --check it only says whether the file is up to date.
set -eu
helm version --short >/dev/null || { echo "helm is not on the PATH" >&2; exit 1; }
cd "$(dirname "$0")/../.."
render() {
    echo "# Generated from deploy/helm/enipool by \`make manifest\`. Do not edit."
    helm template enipool deploy/helm/enipool --namespace enipool-system --include-crds --set createNamespace=true
}
if [ "${1:-}" = --check ]; then
    render | cmp -s - deploy/enipool.yaml || { echo "deploy/enipool.yaml is out of date: run \`make manifest\`" >&2; exit 1; }
else
    render > deploy/enipool.yaml.new
    mv deploy/enipool.yaml.new deploy/enipool.yaml
fi
