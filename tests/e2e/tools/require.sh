#!/usr/bin/env bash
# Says what this machine lacks for building and testing, and how to get it. With --install, as root on a Debian-like
# machine, it gets it. What is already there is not touched.
set -euo pipefail
install=0
[ "${1:-}" = --install ] && install=1
export PATH=$PATH:/usr/sbin:/sbin

target=$(uname -m)-unknown-linux-musl
missing=() # what only a person can install
packages=()

need() { command -v "$1" >/dev/null || packages+=("$2"); }
need cc build-essential
need make build-essential
need musl-gcc musl-tools
[ -f /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
command -v cargo >/dev/null || missing+=("Rust: https://rustup.rs (rust-toolchain.toml then picks the version)")
# Network namespaces, the demo and the scenarios are left out without root: then nothing is missing for them.
if [ "$(id -u)" = 0 ]; then
  need runc runc
  need nft nftables
  need conntrack conntrack
  need iptables iptables
  need ip iproute2
  need ethtool ethtool
  need nsenter util-linux
  need mount mount
  need curl curl
  # The dynamic busybox would not run in an image that holds nothing else.
  { command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1; } || packages+=(busybox-static)
  command -v go >/dev/null || missing+=("Go 1.26 or newer: https://go.dev/dl")
fi
musl_target=1
if command -v rustup >/dev/null; then
  # Some rustups do not fetch the toolchain of rust-toolchain.toml by themselves.
  if [ "$install" = 1 ] && ! rustc --version >/dev/null 2>&1; then
    echo "installing the Rust toolchain of rust-toolchain.toml" >&2
    rustup toolchain install >&2 || missing+=("the Rust toolchain of rust-toolchain.toml: rustup toolchain install")
  fi
  rustup target list --installed 2>/dev/null | grep -qx "$target" || musl_target=0
elif command -v rustc >/dev/null; then
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || missing+=("Rust's standard library for $target")
fi

if [ "$install" = 1 ] && [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  echo "installing Debian packages: ${packages[*]}" >&2
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  if { apt-get update -q && apt-get install -y -q --no-install-recommends "${packages[@]}"; } >"$log" 2>&1 </dev/null; then
    packages=()
  else
    tail -20 "$log" >&2
  fi
  rm -f "$log"
fi
if [ "$install" = 1 ] && [ "$musl_target" = 0 ]; then
  echo "installing Rust's standard library for $target" >&2
  if rustup target add "$target" >&2; then musl_target=1; fi
fi

status=0
if [ ${#packages[@]} -gt 0 ]; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  echo "missing Debian packages; as root: apt-get install -y ${packages[*]}" >&2
  status=1
fi
if [ "$musl_target" = 0 ]; then
  echo "missing Rust target: rustup target add $target" >&2
  status=1
fi
for what in "${missing[@]}"; do
  echo "missing: $what" >&2
  status=1
done
if [ "$status" = 0 ] && [ "$install" = 0 ]; then
  echo "nothing is missing"
  [ "$(id -u)" = 0 ] || echo "but this is not root: network namespace tests, the demo and the scenarios are left out" >&2
fi
exit $status
