package afxdp

import "golang.org/x/sys/unix"

// fillRing gives the kernel empty frames to receive into. We produce.
type fillRing struct {
	ring
	addrs    []uint64 // frame addresses; written by us, a power of two of them
	produced uint32   // our copy of *producer, which nobody else writes
	consumed uint32   // *consumer as last seen; the kernel writes that
}

func (r *fillRing) open(fd int, off unix.XDPRingOffset, n int) (err error) {
	r.ring, r.addrs, err = mapRing[uint64](fd, unix.XDP_UMEM_PGOFF_FILL_RING, off, n)
	return err
}

// room returns how many frames put will take. It asks the kernel only if there
// seems to be room for less than want.
func (r *fillRing) room(want int) int {
	if n := len(r.addrs) - int(r.produced-r.consumed); n >= want {
		return n
	}
	r.consumed = r.consumer.Load()
	return len(r.addrs) - int(r.produced-r.consumed)
}

// put hands over frames, at most room of them.
func (r *fillRing) put(free []uint64) {
	addrs := r.addrs
	if len(addrs) == 0 {
		return
	}
	at := uint(r.produced)
	for i, addr := range free {
		addrs[(at+uint(i))&uint(len(addrs)-1)] = addr
	}
	r.produced += uint32(len(free))
	r.producer.Store(r.produced)
}
