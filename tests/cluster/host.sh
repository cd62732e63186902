#!/bin/bash
# host.sh NAME DIRECTORY: the first process of a host of the test cluster, in new namespaces.
# Gives the host its own name, /proc, /dev/shm, /etc/hosts and /etc/slurm; all else is the machine's, which makes a shared
# file system. Prints its process id in the namespace that it was started from. When its standard input ends, it ends, and
# with it, as the kernel has it, everything that runs on the host.
set -euo pipefail
name=$1 directory=$2
read -r pid _ </proc/self/stat # before the host has a /proc of its own
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 shm /dev/shm
mount --bind "$directory/hosts/$name" /etc/hosts
mount --bind "$directory/etc" /etc/slurm
hostname "$name"
ip link set lo up
echo "$pid"
cat >/dev/null # bash reaps orphans meanwhile
