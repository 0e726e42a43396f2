#!/bin/sh
# The first process of a node: makes the machine's file system look like a node's own, then reaps orphans until the harness
# goes away (standard input ends), with which everything on the node ends. Started in fresh mount, pid and uts namespaces.
#   node-init.sh NAME FOLDER
set -eu
name=$1 root=$2

hostname "$name"

# A /sys of this network namespace, with the cgroups below it (a fresh sysfs has none).
mkdir -p "$root/cgroup"
mount --rbind /sys/fs/cgroup "$root/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$root/cgroup" /sys/fs/cgroup
umount -l "$root/cgroup"

# The kubelet sets these for its whole machine: here it writes to the node's own copies.
mkdir -p "$root/sysctl"
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$name" ] || continue
  copy=$root/sysctl/$(echo "$name" | tr / .)
  cat "/proc/sys/$name" >"$copy"
  mount --bind "$copy" "/proc/sys/$name"
done

# Where kubelet, CNI and logs live on every node. The folders below must exist on the machine; they stay empty there.
for dir in /etc/cni /opt/cni /var/lib/cni /var/lib/kubelet /var/log; do
  mkdir -p "$dir" "$root$dir"
  mount --bind "$root$dir" "$dir"
done
mkdir -p /etc/cni/net.d /opt/cni/bin /var/log/pods
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns

# Mounts made in pods' volumes travel both ways, as on a node booted by systemd.
mount --make-rshared /

# A background command of a script reads /dev/null unless told otherwise.
exec 3<&0
touch "$root/booted"
cat <&3 >/dev/null &
wait $!
