#!/bin/busybox sh
# The init process of a guest: prepares a minimal system, runs the tests, and powers off.

mount() { busybox mount -t "$1" "$1" "$2"; }
mount proc /proc
mount sysfs /sys
mount devtmpfs /dev
mount tmpfs /run
mount tmpfs /tmp

export PATH=/bin PROBE_BIN=/bin/probe

while read -r module; do
    busybox insmod "/modules/$module" || echo "guest: no module $module"
done </modules/order

for test in /tests/*; do
    # One after the other: emulation is slow, and the tests have timeouts.
    "$test" --test-threads=1 </dev/null 2>&1
    echo "guest: ${test##*/} ended with $?"
done

# QEMU runs with -no-reboot and exits instead.
busybox reboot -f
