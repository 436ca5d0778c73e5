#!/bin/busybox sh
# First program of a guest: load modules, lay a writable root over the userland, go on there.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for name in $($B cat /modules/order); do
    option=
    [ $name = dummy ] && option=numdummies=0
    $B insmod /modules/$name.ko $option || echo "init: the module $name does not load"
done

# Disks come in the order of QEMU's command line; what is written goes to memory.
layer() { # disk name onto
    $B mkdir -p /over/$2/new /over/$2/work /over/$2/old
    $B mount -t ext4 -o ro,noload $1 /over/$2/old || $B poweroff -f
    $B mount -t overlay -o lowerdir=/over/$2/old,upperdir=/over/$2/new,workdir=/over/$2/work over $3
}
$B mount -t tmpfs -o size=75%,mode=755 over /over
layer /dev/vda userland /root
layer /dev/vdb project /root/project
for folder in proc sys dev; do $B mount --move /$folder /root/$folder; done
$B mount -t tmpfs -o mode=755 run /root/run
$B mkdir /root/run/bench
$B cp /host.sh /settings /bin/busybox /root/run/bench/
exec $B switch_root /root /bin/bash /run/bench/host.sh
