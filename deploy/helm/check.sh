#!/bin/sh
# Checks the chart: lint, what values make of it, what values are refused, and that deploy/enipool.yaml is its rendering.
# With KUBECONFIG set, the API server looks at both too (dry runs); with ENIPOOL_TEST_KUBECONFIG, an API server of this
# check's own, in which it makes the namespace that the objects go into.
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
agent_gets() { # name and value of a variable of the agent's container, then values
    variable="$1: \"$2\""; shift 2
    found=$(render --show-only templates/agent.yaml "$@" | sed -n 's/^ *- name: //; t name; s/^ *value: //; t value; d
        :name; h; d; :value; H; x; s/\n/: /; p')
    printf '%s\n' "$found" | grep -qxF "$variable" || fail "agent with $*: no variable '$variable' in: $found"
    twice=$(printf '%s\n' "$found" | cut -d: -f1 | sort | uniq -d)
    [ -z "$twice" ] || fail "agent with $*: set twice: $twice"
}
monitoring() { render --show-only templates/monitoring.yaml "$@" 2>/dev/null; }
makes() { # kinds, then values
    expected=$1; shift
    found=$(monitoring "$@" | sed -n 's/^kind: //p' | sort | paste -sd' ' -)
    [ "$found" = "$expected" ] || fail "monitoring with $*: '$found', expected '$expected'"
}
monitoring_says() { # a line, then values
    line=$1; shift
    monitoring "$@" | sed 's/^ *//' | grep -qxF -- "$line" || fail "monitoring with $*: no line '$line'"
}
dry_run() { kubectl apply --dry-run=server --server-side --force-conflicts -f "$1" >/dev/null; }

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
agent_gets ENIPOOL_PORTMAP true
agent_gets ENIPOOL_PORTMAP false --set agent.chainedPlugins.portmap=false
agent_gets ENABLE_BANDWIDTH_PLUGIN false
agent_gets ENABLE_BANDWIDTH_PLUGIN true --set agent.chainedPlugins.bandwidth=true
agent_gets WARM_IP_TARGET 5 --set env.WARM_IP_TARGET=5
agent_gets AWS_VPC_K8S_CNI_EXTERNALSNAT true --set env.AWS_VPC_K8S_CNI_EXTERNALSNAT=true
refused clusterName --set cloudWatch.enabled=true
refused cloudWatch --set cloudWatch.enabeld=true
refused interval --set metrics.interval=5
render --set cloudWatch.enabled=true --set clusterName=prod | grep -A1 'name: CLOUDWATCH_CLUSTER_ID' | grep -q '"prod"' || fail "CloudWatch does not get the cluster's name"
render --set clusterName=prod | grep -q 'name: CLOUDWATCH' && fail "CloudWatch is on by default"
makes ''
makes PodMonitor --set monitoring.podMonitor.enabled=true
makes 'Service ServiceMonitor' --set monitoring.serviceMonitor.enabled=true
makes PrometheusRule --set monitoring.prometheusRule.enabled=true
makes ConfigMap --set monitoring.grafanaDashboard.enabled=true
monitoring_says 'release: "17"' --set monitoring.podMonitor.enabled=true --set-string monitoring.podMonitor.labels.release=17
monitoring_says 'interval: 15s' --set monitoring.podMonitor.enabled=true --set monitoring.podMonitor.interval=15s
monitoring_says 'interval: 1m' --set monitoring.serviceMonitor.enabled=true --set monitoring.serviceMonitor.interval=1m
monitoring_says '- {name: admin, port: 7000, targetPort: admin}' --set monitoring.serviceMonitor.enabled=true --set operator.adminPort=7000
monitoring_says 'runbook_url: docs/monitoring.md#enipoolpodswait' --set monitoring.prometheusRule.enabled=true
monitoring_says 'runbook_url: https://wiki.example.com/enipool#enipoolpodswait' --set monitoring.prometheusRule.enabled=true \
    --set monitoring.prometheusRule.runbookURL=https://wiki.example.com/enipool
monitoring_says 'grafana_dashboard: "1"' --set monitoring.grafanaDashboard.enabled=true
# What the objects hold is what the files say.
render --show-only templates/monitoring.yaml --set monitoring.prometheusRule.enabled=true | grep -c 'alert: Enipool' |
    grep -qx "$(grep -c 'alert: Enipool' "$chart/files/rules.yaml")" || fail "the PrometheusRule has not all alerts"
render --show-only templates/monitoring.yaml --set monitoring.grafanaDashboard.enabled=true | sed -n '/enipool.json: |/,$p' | tail -n +2 |
    sed 's/^    //' | grep . | cmp -s - "$chart/files/dashboard.json" || fail "the ConfigMap is not the dashboard"
refused enabeld --set monitoring.podMonitor.enabeld=true
refused podMonitors --set monitoring.podMonitors.enabled=true
refused interval --set monitoring.serviceMonitor.interval=often
refused labels --set monitoring.prometheusRule.labels.team=7
refused runbookURL --set 'monitoring.prometheusRule.runbookURL=docs/monitoring.md#x'
deploy/helm/manifest.sh --check || failed=1
if [ -n "${ENIPOOL_TEST_KUBECONFIG:-}" ]; then
    # A dry run makes no namespace, and nothing is taken into one that does not exist.
    export KUBECONFIG="$ENIPOOL_TEST_KUBECONFIG"
    kubectl create namespace enipool-system >/dev/null || fail "no namespace could be made"
fi
if [ -n "${KUBECONFIG:-}" ]; then
    render --include-crds --set createNamespace=true --set agent.chainedPlugins.bandwidth=true --set operator.replicas=2 \
        --set apiServer.host=10.0.0.1 --set clusterName=check | dry_run - || fail "the API server refuses the chart with values"
    dry_run deploy/enipool.yaml || fail "the API server refuses deploy/enipool.yaml"
fi
[ "$failed" = 0 ] && echo "chart: all checks passed"
exit "$failed"
