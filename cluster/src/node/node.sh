# Makes the root of a node and becomes the node's first process.
#
# Runs in new mount, PID, UTS and IPC namespaces, in the node's network namespace, as
#   sh node.sh FOLDER NAME PROGRAM...
# FOLDER is the node's own; each PROGRAM is put into the node's /opt/bin. Nothing here changes the machine's own
# mounts: all of them are in the new mount namespace, and end with it.
set -eu
folder=$1 name=$2
shift 2
root=$folder/root

hostname "$name"
mount --bind "$root" "$root"
# Programs and libraries are the machine's, and read-only; everything else is the node's own.
for top in usr bin sbin lib lib32 lib64 libx32 nix; do
	if [ -L "/$top" ]; then
		[ -L "$root/$top" ] || cp -P "/$top" "$root/$top"
	elif [ -d "/$top" ]; then
		mkdir -p "$root/$top"
		mount --rbind "/$top" "$root/$top"
		mount -o remount,bind,ro "$root/$top"
	fi
done
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc-work" "node-etc" "$root/etc"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
# A sysfs shows the interfaces of the network namespace that it was mounted in.
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
[ ! -d /sys/fs/bpf ] || mount -t bpf bpf "$root/sys/fs/bpf" 2>/dev/null || true
# As on a machine that has just been switched on.
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -p "$root/run/netns" "$root/run/lock"
for program in "$@"; do
	: >"$root/opt/bin/${program##*/}"
	mount --bind "$program" "$root/opt/bin/${program##*/}"
done

cd "$root"
mkdir -p .machine
pivot_root . .machine
umount -l /.machine
rmdir /.machine
# Shared inside of the node, so that a Pod with mountPropagation: HostToContainer sees what is mounted later.
mount --make-rshared /
cd /
exec env -i PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root /opt/bin/pause
