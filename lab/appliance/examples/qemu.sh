#!/bin/sh
# Starts an appliance by hand, to look at it: qemu.sh IMAGE.qcow2 SEED. Its console is this
# terminal (Ctrl-A X ends it), and nothing is written to the image. With /dev/kvm it is
# fast. Port 2222 of this machine is SSH of its first NIC, which takes DHCP.
set -eu
accel=tcg,thread=multi cpu=max
if [ -w /dev/kvm ]; then accel=kvm cpu=host; fi
exec qemu-system-x86_64 -machine q35 -accel "$accel" -cpu "$cpu" -smp 2 -m 1024 -nographic -snapshot \
	-drive "file=$1,if=virtio" -drive "file=$2,if=virtio,format=raw,readonly=on" \
	-nic user,model=virtio-net-pci,hostfwd=tcp::2222-:22 -nic user,model=virtio-net-pci -device i6300esb
