#!/bin/sh
# Makes an appliance on a Proxmox VE host (8 or later), from its qcow2 image:
#   proxmox.sh VMID IMAGE.qcow2 SEED.iso [STORAGE]
# The seed is a disk of one's own (see seed/README.md). Proxmox's Cloud-Init drive does as
# well: qm set VMID --ide2 STORAGE:cloudinit --ipconfig0 ip=... --cicustom user=SNIPPET, where
# the snippet is a user-data with the SSH keys (--sshkeys is for Proxmox's own) and, by
# write_files, weir.yaml.
set -eu
if [ $# -lt 3 ]; then
	sed -n 's/^#   //p' "$0" >&2
	exit 2
fi
id=$1 image=$2 seed=$3 storage=${4:-local-lvm}

qm create "$id" --name lb1 --ostype l26 --memory 2048 --cores 4 --cpu host --scsihw virtio-scsi-single \
	--net0 virtio=52:54:00:10:00:01,bridge=vmbr0 \
	--net1 virtio=52:54:00:10:00:02,bridge=vmbr1,queues=4,firewall=0 \
	--serial0 socket --vga serial0 --rng0 source=/dev/urandom --watchdog model=i6300esb,action=reset --onboot 1
qm set "$id" --virtio0 "$storage:0,import-from=$(realpath "$image"),discard=on" --boot order=virtio0
cp "$seed" "/var/lib/vz/template/iso/lb$id-seed.iso"
qm set "$id" --ide2 "local:iso/lb$id-seed.iso,media=cdrom"
echo "qm start $id && qm terminal $id"
