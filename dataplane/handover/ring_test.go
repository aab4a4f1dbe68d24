package handover

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
)

func TestRingKeepsOrderAndContent(t *testing.T) {
	r := NewRing()
	dst := make([]byte, MaxFrame)
	next, want := 0, 0
	for round := 0; round < 50; round++ {
		for i := 0; i < 1+round*7%Slots; i++ {
			frame := bytes.Repeat([]byte{byte(next)}, 60+next%1400)
			if !r.Push(frame, Meta{SrcPort: uint16(next), Asked: byte(next)}) {
				t.Fatalf("push %d refused with %d frames in the ring", next, r.Len())
			}
			next++
		}
		for r.Len() > 0 {
			m, size := r.Next()
			if m != (Meta{SrcPort: uint16(want), Asked: byte(want)}) || size != 60+want%1400 {
				t.Fatalf("frame %d of %d bytes came with %+v", want, size, m)
			}
			n := r.Pop(dst)
			if n != 60+want%1400 || dst[0] != byte(want) || dst[n-1] != byte(want) {
				t.Fatalf("frame %d: got %d bytes of %d", want, n, dst[0])
			}
			want++
		}
	}
	if want != next {
		t.Fatalf("popped %d of %d frames", want, next)
	}
	if n := r.Pop(dst); n != 0 {
		t.Fatalf("pop of an empty ring returned %d", n)
	}
}

func TestRingRefuses(t *testing.T) {
	r := NewRing()
	for i := 0; i < Slots; i++ {
		if !r.Push([]byte{1}, Meta{}) {
			t.Fatalf("push %d refused", i)
		}
	}
	if r.Push([]byte{1}, Meta{}) {
		t.Error("a full ring took a frame")
	}
	r.Pop(make([]byte, 1))
	if r.Push(make([]byte, MaxFrame+1), Meta{}) {
		t.Error("a frame beyond MaxFrame was taken")
	}
	if !r.Push(make([]byte, MaxFrame), Meta{}) {
		t.Error("a frame of MaxFrame was refused")
	}
}

func TestRingLeavesOutFramesLongerThanTheBuffer(t *testing.T) {
	r := NewRing()
	r.Push(make([]byte, 200), Meta{})
	r.Push([]byte("next"), Meta{})
	dst := make([]byte, 100)
	if n := r.Pop(dst); n != -200 {
		t.Errorf("pop of a long frame returned %d, want -200", n)
	}
	if n := r.Pop(dst); n != 4 || string(dst[:4]) != "next" {
		t.Errorf("the frame behind it came as %d bytes", n)
	}
}

// Run with the race detector this shows that the two indices order all access
// to the slots.
func TestRingBetweenGoroutines(t *testing.T) {
	const frames = 100_000
	r := NewRing()
	go func() {
		jumbo := make([]byte, 64, bufferSize+1)
		for i := uint64(0); i < frames; {
			frame := jumbo[:64]
			if i%97 == 0 {
				frame = jumbo[:cap(jumbo)]
			}
			binary.BigEndian.PutUint64(frame[56:], i)
			if r.Push(frame, Meta{}) {
				i++
			}
		}
	}()
	dst := make([]byte, MaxFrame)
	for want := uint64(0); want < frames; {
		if r.Pop(dst) == 0 {
			continue
		}
		if got := binary.BigEndian.Uint64(dst[56:]); got != want {
			t.Fatalf("got frame %d, want %d", got, want)
		}
		want++
	}
}

// A ring runs for months with little in it: what it takes follows from the most
// frames that were in it at once, and not from how many have gone through.
func TestRingMemoryFollowsDepth(t *testing.T) {
	const table = 20 << 10 // bytes, for the slots
	for _, tc := range []struct{ depth, frame, perFrame int }{
		{0, 64, 0}, {1, 64, 2048}, {2, 1500, 2048}, {64, 1500, 2048}, {Slots, 1500, 2048}, {3, MaxFrame, 13 << 10},
	} {
		frame, dst := make([]byte, tc.frame), make([]byte, MaxFrame)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := NewRing()
		for range 3*Slots/max(tc.depth, 1) + 1 {
			for range tc.depth {
				if !r.Push(frame, Meta{}) {
					t.Fatal("a frame was refused")
				}
			}
			for range tc.depth {
				r.Pop(dst)
			}
		}
		runtime.ReadMemStats(&after)
		got := int(after.TotalAlloc - before.TotalAlloc)
		if most := table + tc.depth*tc.perFrame; got > most {
			t.Errorf("%d frames of %d bytes at a time took %d bytes, want at most %d", tc.depth, tc.frame, got, most)
		}
		t.Logf("%d frames of %d bytes at a time: %d KiB", tc.depth, tc.frame, got>>10)
	}
}

// However deep the ring was before, each buffer is in one place: no frame is
// written over one that waits. The indices begin just before they wrap.
func TestRingAgainstASlice(t *testing.T) {
	r := NewRing()
	const begin = ^uint32(0) - Slots
	r.head.Store(begin)
	r.tail.Store(begin)
	r.spare = begin
	rng := rand.New(rand.NewPCG(1, 2))
	var want []uint32
	frame, dst := make([]byte, 4), make([]byte, 4)
	deepest := 0
	for next := uint32(0); next < 20*Slots; {
		for range rng.IntN(Slots) {
			binary.BigEndian.PutUint32(frame, next)
			if pushed := r.Push(frame, Meta{}); pushed != (len(want) < Slots) {
				t.Fatalf("push with %d frames in the ring: %v", len(want), pushed)
			} else if !pushed {
				break
			}
			want = append(want, next)
			next++
		}
		deepest = max(deepest, len(want))
		for range rng.IntN(Slots) {
			if n := r.Pop(dst); n == 0 != (len(want) == 0) {
				t.Fatalf("pop with %d frames in the ring: %d bytes", len(want), n)
			} else if n == 0 {
				break
			}
			if got := binary.BigEndian.Uint32(dst); got != want[0] {
				t.Fatalf("got frame %d, want %d", got, want[0])
			}
			want = want[1:]
		}
	}
	if made := int(r.tail.Load() - r.spare); made != deepest {
		t.Errorf("%d buffers for %d frames at most", made, deepest)
	}
}

func TestRingDoesNotAllocate(t *testing.T) {
	r := NewRing()
	frame, dst := make([]byte, 1500), make([]byte, 2048)
	r.Push(frame, Meta{})
	r.Pop(dst)
	if n := testing.AllocsPerRun(2*Slots, func() { r.Push(frame, Meta{}); r.Pop(dst) }); n != 0 {
		t.Errorf("%v allocations per frame, want 0", n)
	}
}
