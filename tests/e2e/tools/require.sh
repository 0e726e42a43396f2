#!/usr/bin/env bash
# Says what this machine lacks for building and testing, and how to get it. What is already there is not touched.
#
#   require.sh [--install] [PART...]   exit code 1: something is lacking. With --install it is fetched first, where that is
#                                      possible: Rust's toolchain by rustup; Debian packages as root
#   require.sh --why-not PART          why a part cannot run here, in one line; nothing: it can
#
# The parts:
#   build      compiling, and the tests that need nothing more
#   wire       Python: the simulator against boto3 and moto, and with `programs` the dashboards and alerts
#   programs   the cluster's own programs, built from Go modules: for the chart, and the operator against an API server
#   cluster    network namespaces, clusters and the demo: root
# --why-not also knows `netns`: the tests in network namespaces alone.
# Without a PART all of them are wanted by root; others need `build`, and are told what will be left out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# rust-toolchain.toml is found from here.
cd "$here/../../.."
# Where an administrator's programs are, which not every root has in its PATH.
sbin=/usr/sbin:/sbin

target=$(uname -m)-unknown-linux-musl
declare -A packages lacking

need() {
  local PATH=$PATH
  if [ "$1" = cluster ]; then PATH+=:$sbin; fi
  command -v "$2" >/dev/null || packages[$1]+=" $3"
}
lacks() { lacking[$1]+="${lacking[$1]:+; }$2"; }
root() { [ "$(id -u)" = 0 ]; }

# Whether the kernel still makes network namespaces. One in which a process died with the lock of the network configuration
# (a bug of a kernel) lets all that touch it wait for ever, and none of them can be killed: it is asked by a process that is left
# behind.
makes_namespaces() {
  local asked tries
  unshare -n true </dev/null >/dev/null 2>&1 &
  asked=$!
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$asked" 2>/dev/null || { wait "$asked"; return; }
    sleep 0.1
  done
  return 1
}
look_at_kernel() {
  if ! root || makes_namespaces; then return; fi
  lacks "$1" "this kernel makes no network namespace (tried for 10 s). In a container, it takes CAP_SYS_ADMIN; elsewhere start the machine anew"
}

look() {
  packages=() lacking=() toolchain='' # what rustup can get
  need build cc build-essential
  need build make build-essential
  # ring has C code that is compiled against musl's headers. The machine's own cc would take glibc's, and the program
  # might call what musl does not have.
  local compiler=CC_${target//-/_}
  [ -n "${!compiler:-}" ] || need build musl-gcc musl-tools
  [ -f /etc/ssl/certs/ca-certificates.crt ] || packages[build]+=' ca-certificates'
  look_for_rust
  python3 -c 'import ensurepip' 2>/dev/null || packages[wire]+=' python3-venv'
  look_for_go
  if root; then
    need cluster runc runc
    need cluster nft nftables
    need cluster conntrack conntrack
    need cluster iptables iptables
    need cluster ip iproute2
    need cluster ethtool ethtool
    need cluster nsenter util-linux
    need cluster mount mount
    need cluster curl curl
    # busybox's ping knows no `-M do`.
    need cluster ping iputils-ping
    need cluster pgrep procps
    need cluster sysctl procps
    # The dynamic busybox would not run in an image that holds nothing else.
    { command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1; } || packages[cluster]+=' busybox-static'
  else
    lacks cluster 'needs root'
  fi
}

look_for_rust() {
  if ! command -v cargo >/dev/null; then
    lacks build 'Rust: https://rustup.rs (rust-toolchain.toml then picks the version)'
  elif command -v rustup >/dev/null; then
    # Not every rustup fetches the toolchain of rust-toolchain.toml by itself.
    if ! rustc --version >/dev/null 2>&1; then
      toolchain='rustup toolchain install'
      lacks build "the Rust toolchain of rust-toolchain.toml: $toolchain"
    elif ! rustup target list --installed 2>/dev/null | grep -qx "$target"; then
      toolchain="rustup target add $target"
      lacks build "Rust's standard library for $target: $toolchain"
    fi
  elif [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    lacks build "Rust's standard library for $target; rustup (https://rustup.rs) can add it"
  fi
}

look_for_go() {
  local wanted folder said
  # The newest that one of the modules asks for, and that module's folder.
  read -r wanted folder < <(awk '$1 == "go" { sub("/go.mod$", "", FILENAME); print $2, FILENAME }' "$here"/*/go.mod | sort -V | tail -1)
  local get="Go $wanted or newer: https://go.dev/dl"
  if ! command -v go >/dev/null; then
    lacks programs "$get"
  # In a module's folder an older Go fetches the one that the module asks for, unless it was told not to.
  elif ! said=$(cd "$folder" && go version 2>&1); then
    lacks programs "$get (the one here says: ${said//$'\n'/ })"
  else
    said=${said#go version go} said=${said%% *}
    [ "$(printf '%s\n' "$wanted" "$said" | sort -V | head -1)" = "$wanted" ] || lacks programs "$get (the one here is $said)"
  fi
}

# Fetches what is lacking for the parts that are wanted.
get() {
  local part wanted=()
  for part in "$@"; do
    # shellcheck disable=SC2206 # names of packages, divided by blanks
    wanted+=(${packages[$part]:-})
  done
  if [ ${#wanted[@]} -gt 0 ] && root && command -v apt-get >/dev/null; then
    mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
    echo "installing Debian packages: ${wanted[*]}" >&2
    local log; log=$(mktemp)
    (
      export PATH=$PATH:$sbin DEBIAN_FRONTEND=noninteractive
      apt-get update -q && apt-get install -y -q --no-install-recommends "${wanted[@]}"
    ) >"$log" 2>&1 </dev/null || tail -20 "$log" >&2
    rm -f "$log"
  fi
  look
  # A new toolchain brings its targets along; one that was there may lack them.
  while [ -n "$toolchain" ]; do
    local doing=$toolchain
    echo "$doing (rust-toolchain.toml)" >&2
    # An old rustup takes no command without a name, but fetches what it is asked to show.
    $doing >&2 || rustup show >&2 || break
    look
    [ "$toolchain" != "$doing" ] || break
  done
}

# Why a part cannot run, in one line.
why_not() {
  local reasons=${lacking[$1]:-} list
  if [ -n "${packages[$1]:-}" ]; then
    list=$(tr ' ' '\n' <<<"${packages[$1]}" | sort -u | tr '\n' ' ')
    list=${list# }
    reasons+="${reasons:+; }Debian packages, as root: apt-get install -y ${list% }"
  fi
  # A cluster is made of those programs.
  if [ "$1" = cluster ] && [ -n "${lacking[programs]:-}" ]; then reasons+="${reasons:+; }${lacking[programs]}"; fi
  echo "$reasons"
}

install=0 parts=()
if [ "${1:-}" = --why-not ]; then
  look
  # The cluster's own programs ask the kernel for its addresses.
  case $2 in netns | programs | cluster) look_at_kernel "$2" ;; esac
  why_not "$2"
  exit
fi
if [ "${1:-}" = --install ]; then install=1; shift; fi
all=(build wire programs cluster)
if [ $# -gt 0 ]; then parts=("$@"); elif root; then parts=("${all[@]}"); else parts=(build); fi
for part in "${parts[@]}"; do
  [[ " ${all[*]} " == *" $part "* ]] || { echo "require.sh: no part '$part'; parts: ${all[*]}" >&2; exit 2; }
done

look
if [ "$install" = 1 ]; then get "${parts[@]}"; fi
# Who wants it by name is about to use it.
if [[ " $* " == *" cluster "* ]]; then look_at_kernel cluster; fi
status=0
for part in "${parts[@]}"; do
  reason=$(why_not "$part")
  if [ -n "$reason" ]; then
    echo "missing for $part: $reason" >&2
    status=1
  fi
done
if [ "$status" = 0 ] && [ "$install" = 0 ] && [ $# = 0 ]; then
  echo "nothing is missing"
  for part in "${all[@]}"; do
    reason=$(why_not "$part")
    [ -z "$reason" ] || echo "but $part is left out: $reason" >&2
  done
fi
exit $status
