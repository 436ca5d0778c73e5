# Process 1 of a guest after init.sh: devices, file systems, networks, then the command.
#
# From /run/bench/settings: KERNEL, HOSTS (1 or 2), KEEP_DIRTY, COMMAND; see guest.py.
B=/run/bench
. $B/settings
export PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8

port() {
    local each
    for each in /sys/class/virtio-ports/*; do
        [ "$(cat $each/name)" = "$1" ] && echo /dev/${each##*/}
    done
}
exec 9>$(port out)
tell() { printf '\002%s\n' "$*" >&9; }
note() { tell "note $*"; }
must() { "$@" || note "failed: $*"; }

mkdir -p /dev/pts /dev/shm /mnt/pmem /mnt/disk
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
for pair in fd: stdin:/0 stdout:/1 stderr:/2; do
    [ -e /dev/${pair%:*} ] || ln -s /proc/self/fd${pair#*:} /dev/${pair%:*}
done
ulimit -l unlimited
ulimit -n 65536
echo bench >/proc/sys/kernel/hostname
ip link set lo up
if [ $KEEP_DIRTY = 1 ]; then
    # Nobody but the test itself writes dirty pages back: what it did not sync is lost for sure.
    echo 0 >/proc/sys/vm/dirty_writeback_centisecs
    echo 360000 >/proc/sys/vm/dirty_expire_centisecs
fi

# --- storage: a plain disk, one NVDIMM with a file system on it, one as a device ---
blank() { [ -z "$(head -c 65536 $1 | tr -d '\0')" ]; }
format() { must mkfs.ext4 -q -b 4096 -E lazy_itable_init=1,nodiscard $1; }

blank /dev/vdc && format /dev/vdc
must mount -t ext4 /dev/vdc /mnt/disk

# A namespace is `raw` until it is given a mode, which is written on the NVDIMM itself.
mode() { # region mode
    [ "$(cat /sys/bus/nd/devices/namespace$1.0/mode)" = raw ] || return 0
    must ndctl create-namespace -f -e namespace$1.0 -m $2 --map=mem --no-autolabel >/dev/null
}
address() { cat /sys/bus/nd/devices/region$1/resource; }
fsdax=0 devdax=1
[ $(($(address 0))) -lt $(($(address 1))) ] || fsdax=1 devdax=0
mode $fsdax fsdax
mode $devdax devdax
blank /dev/pmem$fsdax && format /dev/pmem$fsdax
must mount -t ext4 -o dax=always /dev/pmem$fsdax /mnt/pmem
ln -s /dev/dax$devdax.0 /dev/dax

# --- networks: an initiator's and a target's, each with an RDMA device ---
export BENCH_KERNEL=$KERNEL BENCH_INITIATOR=10.77.0.1 BENCH_TARGET=10.77.0.2
export BENCH_ENTER_INITIATOR= BENCH_ENTER_TARGET=
export RPMEM_TEST_PMEM=/mnt/pmem RPMEM_TEST_DEVDAX=/dev/dax$devdax.0
if [ $HOSTS = 2 ]; then
    BENCH_ENTER_INITIATOR="ip netns exec a" BENCH_ENTER_TARGET="ip netns exec b"
    # Both see both devices; which one is used, the address says. (Devices that are moved into
    # namespaces of their own lose their management queue, and with it RDMA-CM.)
    ip netns add a
    ip netns add b
    ip link add ether netns a mtu 4200 type veth peer name ether netns b
    for pair in a:$BENCH_INITIATOR b:$BENCH_TARGET; do
        name=${pair%:*}
        ip -n $name link set lo up
        ip -n $name link set ether mtu 4200 up
        ip -n $name address add ${pair#*:}/24 dev ether
        must ip netns exec $name rdma link add rxe_$name type rxe netdev ether
    done
else
    # This kernel's soft-RoCE lives in the first namespace only: both ends share one device.
    ip link add ether type dummy
    ip link set ether mtu 4200 up
    ip address add $BENCH_INITIATOR/24 dev ether
    ip address add $BENCH_TARGET/24 dev ether
    must rdma link add rxe_a type rxe netdev ether
fi
# soft-RoCE's completion queues are shorter than libfabric's default wants.
export FI_UNIVERSE_SIZE=16 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/project

tell "up $(cut -d' ' -f1 /proc/uptime)"
cd /project
# By way of a pipe: the port can be opened only once, /dev/stdout must be something that can be
# opened again; and what the command leaves running must not keep the guest from ending.
mkfifo $B/output
cat <$B/output >&9 &
reader=$!
$BENCH_ENTER_INITIATOR setsid bash -c "$COMMAND" >$B/output 2>&1 </dev/null
status=$?
(sleep 3; kill $reader 2>/dev/null) &
wait $reader
tell "exit $status"
sync
umount /mnt/pmem /mnt/disk 2>/dev/null
exec 9>&-
echo o >/proc/sysrq-trigger
sleep 60
