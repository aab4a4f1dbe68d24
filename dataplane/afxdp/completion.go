package afxdp

import "golang.org/x/sys/unix"

// completionRing is where frames come back that have been sent. We consume.
type completionRing struct {
	ring
	addrs    []uint64 // descriptor addresses; written by the kernel, a power of two of them
	consumed uint32   // our copy of *consumer, which nobody else writes
}

func (r *completionRing) open(fd int, off unix.XDPRingOffset, n int) (err error) {
	r.ring, r.addrs, err = mapRing[uint64](fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off, n)
	return err
}

// take appends the base addresses of all completed frames to free. size is a
// frame's.
func (r *completionRing) take(free []uint64, size uint64) []uint64 {
	addrs := r.addrs
	n := r.producer.Load() - r.consumed
	if n == 0 || len(addrs) == 0 {
		return free
	}
	at := uint(r.consumed)
	for i := range uint(n) {
		free = append(free, addrs[(at+i)&uint(len(addrs)-1)]&^(size-1))
	}
	r.consumed += n
	r.consumer.Store(r.consumed)
	return free
}
