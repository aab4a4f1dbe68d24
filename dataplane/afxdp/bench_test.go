package afxdp

import (
	"testing"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// BenchmarkRings is what one frame costs outside the kernel: it is received,
// sent, reclaimed and given for receiving again, 64 at a time. What the kernel
// would do is in it as far as it is moving addresses from ring to ring.
func BenchmarkRings(b *testing.B) {
	const size = defaultRingSize
	s := ringsOf(b, framesPerEntry*size, size)
	s.refill(1)
	frames := make([]queue.Frame, batch)
	arrive := func() {
		at, from := s.receive.producer.Load(), s.fill.consumer.Load()
		for i := range uint32(batch) {
			s.receive.descs[(at+i)%size] = unix.XDPDesc{Addr: s.fill.addrs[(from+i)%(2*size)] + 256, Len: 60}
		}
		s.fill.consumer.Store(from + batch)
		s.receive.producer.Store(at + batch)
	}
	leave := func() {
		at, from := s.completion.producer.Load(), s.send.consumer.Load()
		for i := range uint32(batch) {
			s.completion.addrs[(at+i)%(2*size)] = s.send.descs[(from+i)%size].Addr
		}
		s.send.consumer.Store(from + batch)
		s.completion.producer.Store(at + batch)
	}
	frame := 0
	for b.Loop() {
		if frame++; frame%batch != 0 {
			continue
		}
		arrive()
		n := s.receive.take(frames, &s.mem)
		s.refill(batch)
		s.reclaim()
		if n != batch || s.enqueue(frames) != batch {
			b.Fatal("a frame was lost")
		}
		leave()
		s.refill(batch)
	}
}
