#!/usr/bin/env bash
# Builds the cluster's own programs (Kubernetes, etcd, containerd, helm, the reference CNI plugins) from Go modules into
# a cache outside the tree, one folder per group and version, and prints the folder that links to all of them.
# A program that is already there is skipped, so a second run takes milliseconds. It installs nothing on the machine:
# the Debian packages are checked by `tests/e2e/tools/require.sh`.
#
#   install.sh [GROUP...]     groups: etcd kubernetes containerd cni helm (default: these); api-server: of the first two what
#                             an API server by itself takes; promtool, and prometheus with it: for alerts and dashboards
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${ENIPOOL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/enipool}
links=$cache/bin
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false

say() { printf '  %s\n' "$*" >&2; }
module_version() { awk -v m="$2" '$1 == m || $2 == m { for (i = 1; i <= NF; i++) if ($i ~ /^v[0-9]/) { print $i; exit } }' "$here/$1/go.mod"; }

# progress NAME TOTAL LOG: counts the packages that `go build -v` names, in place on a terminal, else now and then a line
progress() {
  local name=$1 total=$2 log=$3 count=0 line
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ $line != 'go: downloading '* ]] || continue
    count=$((count + 1))
    if [ -t 2 ]; then
      printf '\r\033[K  %s: %d of at most %d packages' "$name" "$count" "$total" >&2
    elif [ $((count % 300)) = 0 ]; then
      say "$name: $count of at most $total packages"
    fi
  done
  if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

# fetch NAME LOG: counts the modules that go downloads, in place on a terminal
fetch() {
  local name=$1 log=$2 count=0 line
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ $line == 'go: downloading '* ]] || continue
    count=$((count + 1))
    if [ -t 2 ]; then printf '\r\033[K  %s: fetching module %d' "$name" "$count" >&2; fi
  done
  if [ -t 2 ]; then printf '\r\033[K' >&2; elif [ "$count" -gt 0 ]; then say "$name: fetched $count modules"; fi
}

failed() {
  echo "$1 failed; the end of $2:" >&2
  tail -25 "$2" >&2
  exit 1
}

# build GROUP VERSION NAME PACKAGE [go build flags...]: from the pinned module in $here/GROUP
build() {
  local group=$1 version=$2 name=$3 package=$4; shift 4
  local out=$cache/$group-$version/$name
  if [ ! -x "$out" ]; then
    say "building $name $version (once; kept in $cache)"
    local start=$SECONDS
    mkdir -p "$(dirname "$out")"
    # Into a name of our own, then renamed: a killed build leaves nothing that looks finished, two at once do no harm.
    local log=$cache/build-logs/$name.log total
    : >"$log"
    # What is listed goes to standard output, what is fetched to the log.
    if ! total=$( { (cd "$here/$group" && go list -deps "$package") 2>&1 >&3 3>&- | fetch "$name" "$log" 3>&-; } 3>&1 | wc -l); then
      failed "fetching the modules of $name" "$log"
    fi
    if ! (cd "$here/$group" && go build -v -trimpath -o "$out.$$" "$@" "$package") 2>&1 | progress "$name" "$total" "$log"; then
      rm -f "$out.$$"
      failed "building $name" "$log"
    fi
    mv -f "$out.$$" "$out"
    say "built $name in $((SECONDS - start)) s"
  fi
  link "$out" "$name"
}

link() {
  [ "$(readlink "$links/$2" 2>/dev/null)" = "$1" ] && return
  ln -s "$1" "$links/$2.$$" && mv -fT "$links/$2.$$" "$links/$2"
}

etcd() { build etcd "$(module_version etcd go.etcd.io/etcd/server/v3)" etcd go.etcd.io/etcd/server/v3 -ldflags '-s -w'; }

kubernetes() { kubernetes_programs kube-apiserver kubelet kube-controller-manager kube-scheduler kube-proxy kubectl; }

kubernetes_programs() {
  local v; v=$(module_version kubernetes k8s.io/kubernetes)
  local minor=${v#v1.}; minor=${minor%%.*}
  local p=k8s.io/component-base/version
  local flags="-s -w -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=$minor -X $p.gitTreeState=clean"
  local name
  # KUBEBUILDER_ASSETS is the ecosystem's name for a folder that holds etcd, kube-apiserver and kubectl already.
  for name in "$@"; do
    if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$name" ]; then
      link "$KUBEBUILDER_ASSETS/$name" "$name"
    else
      build kubernetes "$v" "$name" "k8s.io/kubernetes/cmd/$name" -ldflags "$flags"
    fi
  done
}

api-server() { etcd; kubernetes_programs kube-apiserver kubectl; }

containerd() {
  local v p=github.com/containerd/containerd/v2; v=$(module_version containerd $p)
  local name
  for name in containerd containerd-shim-runc-v2 ctr; do
    build containerd "$v" "$name" "$p/cmd/$name" -tags 'no_btrfs no_zfs no_devmapper' -ldflags "-s -w -X $p/version.Version=$v"
  done
}

cni() {
  local v; v=$(module_version cni github.com/containernetworking/plugins)
  build cni "$(module_version cni github.com/containernetworking/cni)" cnitool github.com/containernetworking/cni/cnitool -ldflags '-s -w'
  local name
  for name in main/ptp main/bridge main/loopback ipam/host-local meta/portmap meta/bandwidth; do
    build cni "$v" "$(basename $name)" "github.com/containernetworking/plugins/plugins/$name" -ldflags '-s -w'
  done
}

helm() { build helm "$(module_version helm helm.sh/helm/v4)" helm helm.sh/helm/v4/cmd/helm -ldflags '-s -w'; }

# Of its service discoveries only Kubernetes's: the others are a fifth of the packages.
prometheus_programs() {
  local v name p=github.com/prometheus/prometheus; v=$(module_version prometheus $p)
  for name in "$@"; do
    build prometheus "$v" "$name" "$p/cmd/$name" -tags remove_all_sd,enable_kubernetes_sd -ldflags "-s -w -X github.com/prometheus/common/version.Version=${v#v}"
  done
}

promtool() { prometheus_programs promtool; }

prometheus() { prometheus_programs promtool prometheus; }

why=$("$here/require.sh" --why-not programs)
[ -z "$why" ] || { echo "missing: $why" >&2; exit 1; }
mkdir -p "$links" "$cache/build-logs"
for group in "${@:-etcd kubernetes containerd cni helm}"; do
  for g in $group; do
    case $g in
      etcd | kubernetes | containerd | cni | helm | api-server | promtool | prometheus) "$g" ;;
      *) echo "install.sh: no group '$g'; groups: etcd kubernetes containerd cni helm api-server promtool prometheus" >&2; exit 2 ;;
    esac
  done
done
echo "$links"
