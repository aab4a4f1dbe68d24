package afxdp

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is what all four rings of a socket have in common: a mapping shared with
// the kernel, with two indices that only grow (and wrap at 2^32). The producer
// writes an entry, then producer; the consumer reads it, then writes consumer.
// Loads and stores of the indices are atomic, which orders them against the
// entries as Documentation/networking/af_xdp.rst and net/xdp/xsk_queue.h ask.
type ring struct {
	mem      []byte         // the mapping; nil once unmapped
	producer *atomic.Uint32 // in mem
	consumer *atomic.Uint32 // in mem
	flags    *atomic.Uint32 // in mem; written by the kernel
}

// mapRing maps a ring of n entries of type T, which starts at page offset at of
// the socket and is laid out as off says. n is a power of two.
func mapRing[T any](fd int, at int64, off unix.XDPRingOffset, n int) (ring, []T, error) {
	var entry T
	size := int(off.Desc) + n*int(unsafe.Sizeof(entry))
	mem, err := unix.Mmap(fd, at, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring{}, nil, fmt.Errorf("map ring: %w", err)
	}
	r := ring{
		mem:      mem,
		producer: (*atomic.Uint32)(unsafe.Pointer(&mem[off.Producer])),
		consumer: (*atomic.Uint32)(unsafe.Pointer(&mem[off.Consumer])),
		flags:    (*atomic.Uint32)(unsafe.Pointer(&mem[off.Flags])),
	}
	return r, unsafe.Slice((*T)(unsafe.Pointer(&mem[off.Desc])), n), nil
}

// needWakeup tells whether the kernel has stopped looking at the ring and wants
// a system call to look again (XDP_USE_NEED_WAKEUP).
func (r *ring) needWakeup() bool {
	return r.flags.Load()&unix.XDP_RING_NEED_WAKEUP != 0
}

// unmap may be called twice, and on a ring that was never mapped.
func (r *ring) unmap() error {
	if r.mem == nil {
		return nil
	}
	mem := r.mem
	r.mem = nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap ring: %w", err)
	}
	return nil
}
