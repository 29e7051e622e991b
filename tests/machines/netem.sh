#!/usr/bin/env bash
# netem.sh LINK_BENCH: the link bench under `tc netem`, for hosts whose kernel has none.
#
# Boots Debian's kernel in an emulated machine of its own that sees this host's files, read only, and runs the bench there
# between two network namespaces, once for each of the links below. All in it is some 400 times slower than on the host, so
# delays are long, and what they cost is to be compared, not how long the rest takes. Not in CI.
#
# Needs Debian, root, and: apt-get install qemu-system-x86 busybox-static cpio kmod ethtool iproute2
set -euo pipefail

bench=$(readlink -f "$1")
readonly MODULES='virtio_pci 9pnet_virtio 9p overlay sch_netem veth'
readonly MINUTES_MAX=45

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch_kernel() {
  local package
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
  release=${package#linux-image-}
  (cd "$work" && apt-get download -o APT::Sandbox::User=root "$package" && dpkg-deb -x "$package"_*.deb kernel)
  depmod -b "$work/kernel" "$release"
}

make_first_disk() {
  local disk=$work/disk module file
  mkdir -p "$disk"/{bin,modules,proc,sys,dev}
  cp /bin/busybox "$disk/bin/"
  ln -s busybox "$disk/bin/sh"
  for module in $MODULES; do
    modprobe -d "$work/kernel" -S "$release" --show-depends "$module" | awk '/^insmod/ { print $2 }'
  done | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$disk/modules/"
    basename "$file" >> "$disk/order"
  done
  cat > "$disk/init" << 'INIT'
#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /order
mkdir /host /above /all
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host
mount -t tmpfs above /above; mkdir /above/files /above/work
mount -t overlay -o lowerdir=/host,upperdir=/above/files,workdir=/above/work all /all
for folder in proc sys dev; do mount --move /$folder /all/$folder; done
mount -t tmpfs run /all/run; mkdir -p /all/dev/shm; mount -t tmpfs shm /all/dev/shm
cp /measure /all/run/measure
exec chroot /all /bin/bash -c 'exec > /dev/ttyS0 2>&1; . /run/measure'
INIT
  chmod +x "$disk/init"
  { printf 'bench=%q\n' "$bench"; measure_in_guest; } > "$disk/measure"
  (cd "$disk" && find . | cpio --quiet -o -H newc | gzip -1) > "$work/disk.gz"
}

measure_in_guest() {
  cat << 'GUEST'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin 
ip netns add near && ip netns add far
ip link add va netns near type veth peer name vb netns far
ip -n near addr add 10.9.0.1/24 dev va && ip -n far addr add 10.9.0.2/24 dev vb
ip -n near link set lo up && ip -n far link set lo up

# Packets as they are on a wire, so that netem loses single ones.
shape() {
  local namespace=$1 device=$2 mtu=$3
  shift 3
  ip -n "$namespace" link set "$device" up mtu "$mtu" gso_max_segs 1
  ip netns exec "$namespace" ethtool -K "$device" tso off gso off gro off > /dev/null 2>&1
  tc -n "$namespace" qdisc replace dev "$device" root netem limit 100000 "$@"
}

measure() {
  echo "== MTU $1, netem ${*:2} on each way, TCP with $(cat /proc/sys/net/ipv4/tcp_congestion_control)"
  shape near va "$@"
  shape far vb "$@"
  mkdir -p /dev/shm/bench
  ip netns exec far "$bench" --listen 10.9.0.2:7700 --folder /dev/shm/bench &
  sleep 2
  ip netns exec near "$bench" --connect 10.9.0.2:7700 --folder /dev/shm/bench --rounds 20
  kill %% && wait
  rm -rf /dev/shm/bench
}

measure 9000 delay 20ms
measure 1500 delay 20ms loss 1%
echo "== done"
echo o > /proc/sysrq-trigger
sleep 9
GUEST
}

fetch_kernel > /dev/null
make_first_disk
timeout $((MINUTES_MAX * 60)) qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M q35 -smp 2 -m 3072 -nographic -no-reboot \
  -kernel "$work/kernel/boot/vmlinuz-$release" -initrd "$work/disk.gz" -append 'console=ttyS0 quiet panic=-1' \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap < /dev/null | sed -un 's/.*== MTU/== MTU/; /^== MTU/,$p'
