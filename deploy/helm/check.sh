#!/bin/sh
# Checks the chart: lint, what values make of it, what values are refused, and that deploy/enipool.yaml is its rendering.
# With KUBECONFIG set, the API server looks at it too (a dry run).
set -eu
helm version --short >/dev/null || { echo "helm is not on the PATH" >&2; exit 1; }
cd "$(dirname "$0")/../.."
chart=deploy/helm/enipool
failed=0

fail() { echo "FAILED: $*" >&2; failed=1; }
render() { helm template enipool "$chart" --namespace enipool-system "$@"; }
class() { render --show-only templates/default-class.yaml "$@" | sed -n '/default-class.yaml: |/,$p' | tail -n +2 | sed 's/^    //'; }
class_is() { # expected, then values
    expected=$1; shift
    found=$(class "$@" | grep -v '^ *$' | paste -sd' ' - | tr -s ' ')
    [ "$found" = "$expected" ] || fail "class with $*: '$found', expected '$expected'"
}
refused() { # what the message must name, then values
    name=$1; shift
    if message=$(render "$@" 2>&1 >/dev/null); then fail "accepted: $*"; else
        case $message in *"$name"*) ;; *) fail "refused $* without naming $name: $message" ;; esac
    fi
}

helm lint --quiet "$chart" || fail lint
class_is 'warmENITarget: 1'
class_is 'minimumIPTarget: 20 warmIPTarget: 5' --set env.WARM_IP_TARGET=5 --set env.MINIMUM_IP_TARGET=20
class_is 'warmIPTarget: 0' --set env.WARM_IP_TARGET=0
class_is 'addressing: Prefix warmPrefixTarget: 2' --set env.ENABLE_PREFIX_DELEGATION=true --set env.WARM_PREFIX_TARGET=2
class_is 'snat: excludeCIDRs: - 10.8.0.0/16 - 10.9.0.0/16 mode: HashRandom warmENITarget: 1' \
    --set env.AWS_VPC_K8S_CNI_RANDOMIZESNAT=hashrandom --set 'env.AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=10.8.0.0/16\, 10.9.0.0/16'
class_is 'snat: mode: External warmENITarget: 1' --set env.AWS_VPC_K8S_CNI_EXTERNALSNAT=true
class_is 'eniTags: team: a maxENIs: 4 warmENITarget: 3' --set-json 'env.ADDITIONAL_ENI_TAGS="{\"team\":\"a\"}"' \
    --set env.MAX_ENI=4 --set defaultClass.spec.warmENITarget=3
refused WARM_ENI_TARGTE --set env.WARM_ENI_TARGTE=1
refused WARM_ENI_TARGET --set-string env.WARM_ENI_TARGET=many
refused replicas --set operator.replicas=many
refused host --set apiServer.host=https://10.0.0.1
render --set operator.replicas=2 | grep -q 'kind: PodDisruptionBudget' || fail "two replicas without a PodDisruptionBudget"
render --set apiServer.host=10.0.0.1 | grep -c 'name: KUBERNETES_SERVICE_HOST' | grep -qx 2 || fail "apiServer.host does not reach both"
deploy/helm/manifest.sh --check || failed=1
if [ -n "${KUBECONFIG:-}" ]; then
    render --include-crds --set createNamespace=true | kubectl apply --dry-run=server --server-side --force-conflicts -f - >/dev/null || fail "the API server refuses it"
fi
[ "$failed" = 0 ] && echo "chart: all checks passed"
exit "$failed"
