package afxdp

import (
	"fmt"
	"testing"
	"time"

	"weir/dataplane/queue"
)

// account is where the frames of a socket are.
type account struct {
	free     int // on the stack
	fill     int // handed over for receiving, not taken by the kernel
	kernelRx int // taken for receiving: with the NIC, or kept for the next packet
	received int // in the receive ring
	send     int // handed over for sending, not taken by the kernel
	kernelTx int // taken for sending, not completed
	complete int // in the completion ring
	caller   int // all others
}

// accountOf counts the frames, and fails if one is in two places or is none. It
// goes by the content of the stack and the rings and by the kernel's indices, so
// a frame that got lost counts as the caller's. The kernel may be at work on
// frames that are still coming: it counts again until that was not so meanwhile.
func accountOf(t testing.TB, s *xsk) account {
	t.Helper()
	kernels := func() [4]uint32 {
		return [...]uint32{
			s.fill.consumer.Load(), s.receive.producer.Load(), s.send.consumer.Load(), s.completion.producer.Load(),
		}
	}
	for {
		before := kernels()
		a, faults := count(s)
		if kernels() != before {
			continue
		}
		for _, fault := range faults {
			t.Error(fault)
		}
		return a
	}
}

// count is accountOf for one moment, with what is wrong.
func count(s *xsk) (a account, faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	seen := make(map[uint64]string)
	note := func(place string, addr uint64) {
		id := addr &^ (s.mem.frameSize - 1)
		if id >= uint64(len(s.mem.mem)) {
			fault("%s: address %d is outside the memory", place, addr)
		}
		if before, ok := seen[id]; ok {
			fault("frame %d is in two places: %s and %s", id, before, place)
		}
		seen[id] = place
	}
	for _, id := range s.stack {
		if id%s.mem.frameSize != 0 {
			fault("stack: %d is not the beginning of a frame", id)
		}
		note("stack", id)
	}
	walk := func(place string, r *ring, at func(i uint32) uint64) int {
		n := int(r.producer.Load() - r.consumer.Load())
		for i := range uint32(n) {
			note(place, at(r.consumer.Load()+i))
		}
		return n
	}
	a.free = len(s.stack)
	a.fill = walk("fill ring", &s.fill.ring, func(i uint32) uint64 { return s.fill.addrs[i&uint32(len(s.fill.addrs)-1)] })
	a.received = walk("receive ring", &s.receive.ring, func(i uint32) uint64 { return s.receive.descs[i&uint32(len(s.receive.descs)-1)].Addr })
	a.send = walk("send ring", &s.send.ring, func(i uint32) uint64 { return s.send.descs[i&uint32(len(s.send.descs)-1)].Addr })
	a.complete = walk("completion ring", &s.completion.ring, func(i uint32) uint64 {
		return s.completion.addrs[i&uint32(len(s.completion.addrs)-1)]
	})
	a.kernelRx = int(s.fill.consumer.Load() - s.receive.producer.Load())
	a.kernelTx = int(s.send.consumer.Load() - s.completion.producer.Load())
	a.caller = len(s.mem.mem)/int(s.mem.frameSize) - len(seen) - a.kernelRx - a.kernelTx
	return a, faults
}

// wantHeld waits until nothing is on its way out any more, and checks that all
// frames but held are accounted for.
func wantHeld(t testing.TB, q queue.Queue, held int) {
	t.Helper()
	s := q.(*xsk)
	var a account
	for range 100 {
		if err := s.Wait(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if a = accountOf(t, s); a.send == 0 && a.kernelTx == 0 {
			break
		}
	}
	if a.caller != held || a.send != 0 || a.kernelTx != 0 {
		t.Errorf("frames with the caller: %d, want %d, and nothing on its way out: %+v", a.caller, held, a)
	}
	// The kernel keeps a few frames that it had no use for after all.
	if a.kernelRx < 0 || a.kernelRx > 64 {
		t.Errorf("%d frames are with the kernel for receiving: %+v", a.kernelRx, a)
	}
}
