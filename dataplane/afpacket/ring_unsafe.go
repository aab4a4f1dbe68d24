package afpacket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// header returns the kernel's description of the frame in a slot. Its Status is
// shared with the kernel and only accessed atomically; the rest is ours to read
// while Status says that the slot is.
func (r *ring) header(slot int) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&r.mem[slot*r.size]))
}
