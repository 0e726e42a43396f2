#!/bin/sh
# Collects what an engineer would ask for about the pod network of this node into one archive.
#
#   /opt/cni/bin/aws-cni-support.sh [-o FILE]     default: /var/log/aws-routed-eni/aws-cni-support.tar.gz
#
# Reads only; runs on the node itself as root, with or without the agent, and goes on when a part is missing: what could
# not be collected is listed in the archive's MISSING. Left out: environments of processes, credentials, tokens and
# kubeconfigs. Process command lines and pod names are in it.
set -u
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

log_dir=${ENIPOOL_LOG_DIR:-/var/log/aws-routed-eni}
run_dir=${ENIPOOL_RUN_DIR:-/run/enipool}
cni_dir=${ENIPOOL_CNI_CONF_DIR:-/etc/cni/net.d}
introspection=${ENIPOOL_INTROSPECTION:-http://127.0.0.1:61678}
imds=http://169.254.169.254/latest
out=$log_dir/aws-cni-support.tar.gz
# No single command may hold the bundle up.
limit=10

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
  case $1 in
    -o) [ $# -ge 2 ] || { echo "aws-cni-support.sh: -o needs a file name" >&2; exit 2; }; out=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "aws-cni-support.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
done
[ "$(id -u)" = 0 ] || { echo "aws-cni-support.sh: run it as root (sudo $0)" >&2; exit 1; }

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
top=$work/enipool-support
mkdir -p "$top/kernel" "$top/agent" "$top/cni" "$top/imds" "$top/system"

missing() { echo "$1: $2" >>"$top/MISSING"; }
# run FILE COMMAND...: its output, its errors and its exit code if not 0
run() {
  file=$top/$1; shift
  if ! command -v "$1" >/dev/null 2>&1; then missing "${file#"$top"/}" "no command '$1' on this node"; return; fi
  timeout "$limit" "$@" >"$file" 2>"$file.err"; code=$?
  [ $code -eq 0 ] || missing "${file#"$top"/}" "'$*' ended with $code"
  [ -s "$file.err" ] || rm -f "$file.err"
}
fetch() { # fetch FILE URL [HEADER]
  if command -v curl >/dev/null 2>&1; then run "$1" curl -sS -f -m 5 ${3:+-H "$3"} "$2"
  elif command -v wget >/dev/null 2>&1; then run "$1" wget -q -T 5 -O - ${3:+--header "$3"} "$2"
  else missing "$1" "neither curl nor wget on this node"; fi
}
copy() { # copy PATH FOLDER
  if [ -e "$1" ]; then cp -r "$1" "$top/$2/" 2>>"$top/MISSING" || missing "$2" "copying $1 failed"; else missing "$2" "$1 does not exist"; fi
}

date -u +%Y-%m-%dT%H:%M:%SZ >"$top/TAKEN_AT"
for page in enis pods pool intents config; do fetch "agent/v1-$page.json" "$introspection/v1/$page"; done
fetch agent/metrics.txt "$introspection/metrics"
# EC2, ledger and kernel held against each other. A difference is an answer too, so the exit code says nothing here.
doctor=$top/agent/doctor.json
if command -v crictl >/dev/null 2>&1; then
  sandbox=$(timeout "$limit" crictl pods -q --state Ready --name '^enipool-agent-' 2>/dev/null | head -n 1)
  container=$([ -z "$sandbox" ] || timeout "$limit" crictl ps -q --pod "$sandbox" --name '^agent$' 2>/dev/null | head -n 1)
  if [ -n "$container" ]; then
    timeout 30 crictl exec "$container" /enipool-agent doctor -o json >"$doctor" 2>"$doctor.err"
    [ -s "$doctor" ] || missing agent/doctor.json "the doctor could not look; why is in doctor.json.err"
    [ -s "$doctor.err" ] || rm -f "$doctor.err"
  else missing agent/doctor.json "no container of the agent runs on this node"; fi
else missing agent/doctor.json "no crictl on this node; run 'enipool-agent doctor' in the agent's pod"; fi
[ -d "$run_dir" ] && find "$run_dir" -maxdepth 2 -exec ls -ld {} + >"$top/agent/run-dir.txt" 2>/dev/null
for name in del-queue found.json instance-type.json wishes.json chained-plugins.json; do
  [ -e "$run_dir/$name" ] && copy "$run_dir/$name" agent
done
for file in "$run_dir"/ledger*; do [ -e "$file" ] && copy "$file" agent; done

# Logs, newest last; the archive itself and older archives stay out.
mkdir -p "$top/logs"
if [ -d "$log_dir" ]; then
  find "$log_dir" -maxdepth 1 -type f ! -name '*.tar.gz*' -exec cp {} "$top/logs/" \;
else missing logs "$log_dir does not exist"; fi

run kernel/links.txt ip -d -s link show
run kernel/addresses.txt ip addr show
run kernel/rules.txt ip rule show
run kernel/routes.txt ip route show table all
run kernel/neighbours.txt ip neigh show
run kernel/nftables.txt nft list ruleset
run kernel/iptables.txt iptables-save
run kernel/conntrack.txt sh -c 'cat /proc/sys/net/netfilter/nf_conntrack_count /proc/sys/net/netfilter/nf_conntrack_max'
run kernel/sysctl.txt sh -c 'cd /proc/sys/net/ipv4 && grep -H . ip_forward conf/*/rp_filter conf/*/forwarding conf/*/accept_local fib_multipath_hash_policy 2>/dev/null'
run kernel/sockets.txt ss -s
run kernel/netdev.txt cat /proc/net/dev
run kernel/softnet.txt cat /proc/net/softnet_stat

# CNI configuration: *.conflist and *.conf only. Kubeconfigs that some plugins keep beside them hold tokens, and some
# plugins have theirs in the configuration itself.
for file in "$cni_dir"/*.conflist "$cni_dir"/*.conf; do
  [ -f "$file" ] || continue
  sed -E 's/("[^"]*(token|password|secret|credential)[^"]*"[[:space:]]*:[[:space:]]*)"([^"\\]|\\.)*"/\1"left out"/Ig' \
    "$file" >"$top/cni/${file##*/}" || missing "cni/${file##*/}" "copying $file failed"
done
[ -n "$(ls -A "$top/cni")" ] || missing cni "no CNI configuration in $cni_dir: the node cannot start pods"
ls -l /opt/cni/bin >"$top/cni/plugins.txt" 2>&1

# Without curl there is no portable PUT, which IMDSv2's token needs.
if command -v curl >/dev/null 2>&1; then
  token=$(curl -sS -f -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/api/token" 2>/dev/null)
  if [ -n "$token" ]; then
    header="X-aws-ec2-metadata-token: $token"
    for path in instance-id instance-type local-ipv4 mac placement/availability-zone; do
      fetch "imds/$(echo "$path" | tr / -)" "$imds/meta-data/$path" "$header"
    done
    macs=$imds/meta-data/network/interfaces/macs/
    for mac in $(curl -sS -f -m 5 -H "$header" "$macs" 2>/dev/null); do
      for key in interface-id device-number subnet-id subnet-ipv4-cidr-block local-ipv4s ipv4-prefix vpc-ipv4-cidr-blocks; do
        value=$(curl -sS -f -m 5 -H "$header" "$macs$mac$key" 2>/dev/null) && echo "$mac $key: $(echo "$value" | tr '\n' ' ')" >>"$top/imds/interfaces"
      done
    done
  else missing imds "the instance metadata service gave no token"; fi
else missing imds "no curl on this node"; fi

uname -a >"$top/system/uname"
run system/os-release cat /etc/os-release
run system/memory cat /proc/meminfo
run system/processes ps -eo pid,ppid,rss,etime,comm
run system/dmesg.txt sh -c 'dmesg | tail -n 2000'
run system/kubelet.log journalctl -u kubelet --since '-2h' --no-pager
run system/containerd.log journalctl -u containerd --since '-2h' --no-pager
run system/containers.txt crictl ps -a
run system/sandboxes.txt crictl pods

mkdir -p "$(dirname "$out")" || exit 1
# Into a name of its own, then renamed: a reader never sees half an archive.
if tar -C "$work" -czf "$out.$$" enipool-support && mv -f "$out.$$" "$out"; then
  echo "$out"
  [ ! -s "$top/MISSING" ] || echo "not everything could be collected: $(wc -l <"$top/MISSING") lines in MISSING of the archive" >&2
else
  rm -f "$out.$$"
  echo "aws-cni-support.sh: could not write $out" >&2
  exit 1
fi
