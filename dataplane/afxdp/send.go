package afxdp

import (
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// sendRing takes frames to be sent. We produce.
type sendRing struct {
	ring
	descs    []unix.XDPDesc // written by us, a power of two of them
	produced uint32         // our copy of *producer, which nobody else writes
	consumed uint32         // *consumer as last seen; the kernel writes that
}

func (r *sendRing) open(fd int, off unix.XDPRingOffset, n int) (err error) {
	r.ring, r.descs, err = mapRing[unix.XDPDesc](fd, unix.XDP_PGOFF_TX_RING, off, n)
	return err
}

// pending returns how many frames the kernel has not taken yet.
func (r *sendRing) pending() int {
	r.consumed = r.consumer.Load()
	return int(r.produced - r.consumed)
}

// room returns how many frames put will take. It asks the kernel only if there
// seems to be room for less than want.
func (r *sendRing) room(want int) int {
	if n := len(r.descs) - int(r.produced-r.consumed); n >= want {
		return n
	}
	return len(r.descs) - r.pending()
}

// put hands over frames, at most room of them.
func (r *sendRing) put(frames []queue.Frame) {
	descs := r.descs
	if len(descs) == 0 {
		return
	}
	at := uint(r.produced)
	for i := range frames {
		f := &frames[i]
		descs[(at+uint(i))&uint(len(descs)-1)] = unix.XDPDesc{Addr: f.ID + uint64(f.Start), Len: f.End - f.Start}
	}
	r.produced += uint32(len(frames))
	r.producer.Store(r.produced)
}
