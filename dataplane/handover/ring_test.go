package handover

import (
	"bytes"
	"encoding/binary"
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
			if m := r.Next(); m != (Meta{SrcPort: uint16(want), Asked: byte(want)}) {
				t.Fatalf("frame %d came with %+v", want, m)
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
		frame := make([]byte, 64)
		for i := uint64(0); i < frames; {
			binary.BigEndian.PutUint64(frame[56:], i)
			if r.Push(frame, Meta{}) {
				i++
			}
		}
	}()
	dst := make([]byte, 64)
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

func TestRingDoesNotAllocate(t *testing.T) {
	r := NewRing()
	frame, dst := make([]byte, 1500), make([]byte, 2048)
	for range Slots { // a slot gets its buffer when it is come by first
		r.Push(frame, Meta{})
		r.Pop(dst)
	}
	if n := testing.AllocsPerRun(1000, func() { r.Push(frame, Meta{}); r.Pop(dst) }); n != 0 {
		t.Errorf("%v allocations per frame, want 0", n)
	}
}
