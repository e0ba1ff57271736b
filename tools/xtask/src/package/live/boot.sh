#!/bin/sh
# Makes a world for a systemd of its own and becomes its first process. Runs in new namespaces (mount, pid, uts, ipc, net,
# cgroup): nothing here is seen outside, and all of it ends with the first process.
#
#   boot.sh SHARE              SHARE/world is where the world is made; SHARE itself appears in it as /run/share
#
# Exit code 125: this machine does not let us. What the kernel has only once (settings, modules, the clock) is read-only or
# out of reach in there.
share=$1
world=$share/world

make() {
    mount --make-rprivate / &&
        mkdir -p "$world/over" "$world/root" &&
        mount -t tmpfs -o mode=755 tmpfs "$world/over" &&
        mkdir "$world/over/upper" "$world/over/work" &&
        # This system's files; what is written goes to memory.
        mount -t overlay -o "lowerdir=/,upperdir=$world/over/upper,workdir=$world/over/work" overlay "$world/root" &&
        cd "$world/root" &&
        mount -t proc proc proc &&
        mount --bind proc/sys proc/sys &&
        mount -o remount,bind,ro proc/sys &&
        mount -t sysfs -o ro sysfs sys &&
        mount -t cgroup2 cgroup2 sys/fs/cgroup &&
        mount -t tmpfs -o mode=755 tmpfs run &&
        mount -t tmpfs -o mode=1777 tmpfs tmp &&
        mkdir run/share &&
        mount --bind "$share" run/share &&
        mount -t tmpfs -o mode=755 tmpfs dev &&
        for device in null zero full random urandom tty; do
            : >"dev/$device" && mount --bind "/dev/$device" "dev/$device" || return 1
        done &&
        mkdir dev/pts dev/shm &&
        mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts &&
        mount -t tmpfs -o mode=1777 tmpfs dev/shm &&
        ln -s pts/ptmx dev/ptmx &&
        ln -s /proc/self/fd dev/fd &&
        # None of this system's own units, drives or generators.
        mount -t tmpfs tmpfs lib/systemd/system-generators &&
        rm -rf etc/systemd/system etc/systemd/system-generators &&
        mkdir etc/systemd/system &&
        : >etc/fstab &&
        cp run/share/trial.target run/share/trial.service etc/systemd/system/ &&
        mkdir old &&
        ip link set lo up &&
        # Not chroot: in one nobody makes user namespaces, which the unit asks for.
        pivot_root . old &&
        umount -l /old &&
        # As a machine's first process has it: what systemd mounts for a service (its credentials) is seen by the service.
        mount --make-rshared /
}

make || exit 125
exec env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \
    --bounding-set=-sys_module,-sys_time,-sys_rawio,-sys_boot,-syslog \
    /lib/systemd/systemd --system --unit=trial.target --log-target=null --show-status=no
