# Runs a command in another root file system, in separate mount and process namespaces: its mounts and processes end
# with it. The kernel, its network namespaces and BPF are shared with the machine.
# Arguments: the root, Rust's toolchain, then a command.
set -eu
root=$1 toolchain=$2
shift 2
mount --make-rprivate /
# `ip netns` needs a mount point for a root.
mount --bind "$root" "$root"
# At its own path, since its programs may be links to absolute paths.
mkdir -p "$root$toolchain"
mount --bind "$toolchain" "$root$toolchain"
mount -o remount,bind,ro "$root$toolchain"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
# Not chroot, in which a process may not create user namespaces.
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
cd /src/checkout
exec "$@"
