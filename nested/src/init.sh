#!/bin/busybox sh
# The first program of the nested host: makes its devices work, puts a writable layer over the files of the host
# below, and gives the machine to the command that it was started for.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module" || echo "nested: $module is not loaded"
done < /modules/order
mkdir -p /below /above /both
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose below /below
mount -t tmpfs -o size=75% above /above
mkdir /above/files /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/files,workdir=/above/work over /both
for tree in proc sys dev; do
    mount --move "/$tree" "/both/$tree"
done
mkdir -p /both/dev/pts /both/dev/shm
mount -t devpts pts /both/dev/pts
mount -t tmpfs shm /both/dev/shm
mount -t tmpfs run /both/run
mount -t cgroup2 cgroup /both/sys/fs/cgroup
mkdir -m 1777 /both/run/tmp
ip link set lo up
command=$(sed 's/.*nested.command=//' /both/proc/cmdline)
exec switch_root /both /bin/sh "$command"
