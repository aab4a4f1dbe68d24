package afxdp

import (
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// receiveRing brings received frames. We consume.
type receiveRing struct {
	ring
	descs    []unix.XDPDesc // written by the kernel, a power of two of them
	produced uint32         // *producer as last seen; the kernel writes that
	consumed uint32         // our copy of *consumer, which nobody else writes
}

func (r *receiveRing) open(fd int, off unix.XDPRingOffset, n int) (err error) {
	r.ring, r.descs, err = mapRing[unix.XDPDesc](fd, unix.XDP_PGOFF_RX_RING, off, n)
	return err
}

// available returns how many frames are there. It asks the kernel only if none
// are known of.
func (r *receiveRing) available() uint32 {
	if n := r.produced - r.consumed; n > 0 {
		return n
	}
	r.produced = r.producer.Load()
	return r.produced - r.consumed
}

// take moves received frames to frames and returns how many.
func (r *receiveRing) take(frames []queue.Frame, mem *memory) int {
	descs := r.descs
	n := min(int(r.available()), len(frames))
	if n == 0 || len(descs) == 0 {
		return 0
	}
	at := uint(r.consumed)
	for i := range frames[:n] {
		desc := &descs[(at+uint(i))&uint(len(descs)-1)]
		id := desc.Addr &^ (mem.frameSize - 1)
		start := uint32(desc.Addr - id)
		f := &frames[i] // in place: a struct made first is copied in pieces that the CPU waits for
		f.Buf, f.Start, f.End, f.ID = mem.frame(id), start, start+desc.Len, id
	}
	r.consumed += uint32(n)
	r.consumer.Store(r.consumed)
	return n
}
