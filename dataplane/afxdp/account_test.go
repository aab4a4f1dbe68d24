package afxdp

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
	"weir/dataplane/queue/queuetest"
)

// accountOf counts the frames of q.
func accountOf(t testing.TB, q queue.Queue) Account {
	t.Helper()
	a, err := AccountOf(q)
	if err != nil {
		t.Error(err)
	}
	return a
}

// wantHeld waits until nothing is on its way out any more, and checks that all
// frames but held are accounted for.
func wantHeld(t testing.TB, q queue.Queue, held int) {
	t.Helper()
	var a Account
	for range 100 {
		if err := q.Wait(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if a = accountOf(t, q); a.Send == 0 && a.Sending == 0 {
			break
		}
	}
	if a.Held != held || a.Send != 0 || a.Sending != 0 {
		t.Errorf("frames with the caller: %d, want %d, and nothing on its way out: %+v", a.Held, held, a)
	}
	// The kernel keeps a few frames that it had no use for after all.
	if a.Receiving < 0 || a.Receiving > 64 {
		t.Errorf("%d frames are with the kernel for receiving: %+v", a.Receiving, a)
	}
}

// ringsOf makes a queue whose rings, of so many entries, are not shared with any
// kernel. Their indices are about to wrap.
func ringsOf(t testing.TB, frames, entries int) *xsk {
	t.Helper()
	const at = ^uint32(0)
	shared := func() ring {
		r := ring{producer: new(atomic.Uint32), consumer: new(atomic.Uint32), flags: new(atomic.Uint32)}
		r.producer.Store(at)
		r.consumer.Store(at)
		return r
	}
	mem, err := mapMemory(frames, 2048)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.unmap() })
	s := &xsk{mem: mem}
	s.fill = fillRing{ring: shared(), addrs: make([]uint64, 2*entries), produced: at, consumed: at}
	s.completion = completionRing{ring: shared(), addrs: make([]uint64, 2*entries), consumed: at}
	s.receive = receiveRing{ring: shared(), descs: make([]unix.XDPDesc, entries), produced: at, consumed: at}
	s.send = sendRing{ring: shared(), descs: make([]unix.XDPDesc, entries), produced: at, consumed: at}
	for i := range uint64(frames) {
		s.stack = append(s.stack, i*2048)
	}
	return s
}

// TestAccount moves frames from place to place, as the kernel does its part.
func TestAccount(t *testing.T) {
	s := ringsOf(t, 8, 2)
	want := func(what string, w Account) {
		t.Helper()
		if got := accountOf(t, s); got != w {
			t.Errorf("%s: %+v, want %+v", what, got, w)
		}
	}
	want("at first", Account{Free: 8})

	s.refill(1)
	want("filled", Account{Free: 4, Fill: 4})

	taken := s.fill.addrs[3] // the first of them: the indices begin at -1
	s.fill.consumer.Add(1)
	want("taken for receiving", Account{Free: 4, Fill: 3, Receiving: 1})

	s.receive.descs[1] = unix.XDPDesc{Addr: taken + 256, Len: 60}
	s.receive.producer.Add(1)
	want("received", Account{Free: 4, Fill: 3, Received: 1})

	frames := make([]queue.Frame, 4)
	n := s.receive.take(frames[:2], &s.mem)
	n += s.Alloc(frames[n:])
	want("held", Account{Free: 1, Fill: 3, Held: 4})
	if n != 4 {
		t.Fatalf("%d frames", n)
	}

	s.send.put(frames[:2])
	want("to be sent", Account{Free: 1, Fill: 3, Send: 2, Held: 2})
	s.send.consumer.Add(2)
	want("being sent", Account{Free: 1, Fill: 3, Sending: 2, Held: 2})

	s.completion.addrs[3], s.completion.addrs[0] = frames[1].ID+300, frames[0].ID
	s.completion.producer.Add(2)
	want("sent", Account{Free: 1, Fill: 3, Completed: 2, Held: 2})
	s.reclaim()
	want("reclaimed", Account{Free: 3, Fill: 3, Held: 2})

	s.push(frames[2:])
	want("given back", Account{Free: 5, Fill: 3})
}

// The kernel tells of a frame in the receive ring first, and only then that it has
// taken it from the fill ring. Its CPU may be taken away in between.
func TestAccountWaitsForTheKernel(t *testing.T) {
	s := ringsOf(t, 8, 2)
	s.refill(1)
	s.receive.descs[1] = unix.XDPDesc{Addr: s.fill.addrs[3], Len: 60}
	s.receive.producer.Add(1)
	time.AfterFunc(20*time.Millisecond, func() { s.fill.consumer.Add(1) })
	if got, want := accountOf(t, s), (Account{Free: 4, Fill: 3, Received: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestAccountFindsFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(s *xsk)
		want   string
	}{
		{"given back twice", func(s *xsk) { s.stack = append(s.stack, s.stack[0]) }, "frame 0 is in two places: free and free"},
		{"free and filled", func(s *xsk) { s.fill.put(s.stack[2:3]) }, "frame 2 is in two places: free and fill ring"},
		{"no frame", func(s *xsk) { s.fill.put([]uint64{8 * 2048}) }, "address 16384 in the fill ring is outside the packet memory"},
		{"inside a frame", func(s *xsk) { s.stack[1] += 256 }, "2304 among the free frames is not the beginning of one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := ringsOf(t, 8, 2)
			tc.change(s)
			if _, err := AccountOf(s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

func TestAccountOfOthers(t *testing.T) {
	if _, err := AccountOf(queuetest.New(8)); err == nil {
		t.Error("counted the frames of another queue")
	}
	s := ringsOf(t, 8, 2)
	s.closed.Store(true)
	if _, err := AccountOf(s); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
