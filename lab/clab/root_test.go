package clab

import (
	"fmt"
	"testing"
)

// TestShown takes lines of the mounts of a laptop.
func TestShown(t *testing.T) {
	const mountinfo = `21 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
22 21 0:20 / /proc rw,nosuid shared:5 - proc proc rw
23 21 0:21 / /run rw,nosuid shared:6 - tmpfs tmpfs rw
24 23 0:4 net:[4026532301] /run/netns/weir-x-1-a rw shared:7 - nsfs nsfs rw
25 21 259:4 / /home rw,relatime shared:8 - ext4 /dev/nvme0n1p3 rw
26 25 0:30 / /home/a/My\040Files rw shared:9 - fuse.sshfs host: rw
27 21 259:1 / /boot rw shared:10 - ext4 /dev/nvme0n1p1 rw
28 27 259:5 / /boot/efi rw shared:11 - vfat /dev/nvme0n1p5 rw
29 28 259:6 / /boot/efi rw shared:11 - vfat /dev/nvme0n1p6 rw
30 21 0:50 / /var/lib/docker/overlay2/1c9/merged rw shared:12 - overlay overlay rw
31 21 0:51 / /var/lib/dockerish rw shared:13 - tmpfs tmpfs rw
32 21 0:52 / /runner rw shared:14 - tmpfs tmpfs rw

cut off
`
	want := []string{"/boot", "/boot/efi", "/home", "/home/a/My Files", "/runner", "/var/lib/dockerish"}
	if got := shown(mountinfo); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
}
