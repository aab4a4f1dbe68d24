#!/bin/sh
# Starts an appliance by hand, to look at it: qemu.sh IMAGE.qcow2 SEED. Its console is this
# terminal (Ctrl-A X ends it), and nothing is written to the image. With /dev/kvm it is
# fast. With the addresses of the example's seed, and a key of yours in it:
#   ssh -p 2222 root@localhost
set -eu
accel=tcg,thread=multi cpu=max
if [ -w /dev/kvm ]; then accel=kvm cpu=host; fi
exec qemu-system-x86_64 -machine q35 -accel "$accel" -cpu "$cpu" -smp 2 -m 1024 -nodefaults -display none -serial mon:stdio -snapshot \
	-drive "file=$1,if=virtio" -drive "file=$2,if=virtio,format=raw,readonly=on" -device i6300esb \
	-nic user,model=virtio-net-pci,mac=52:54:00:10:00:01,net=192.0.2.0/24,host=192.0.2.1,dhcpstart=192.0.2.9,hostfwd=tcp:127.0.0.1:2222-192.0.2.2:22 \
	-nic user,model=virtio-net-pci,mac=52:54:00:10:00:02,net=10.0.0.0/24,host=10.0.0.1,dhcpstart=10.0.0.20
