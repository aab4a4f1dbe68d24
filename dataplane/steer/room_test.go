package steer

import (
	"math"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const xdpDrop = 1

func udpTo(t *testing.T, to netip.Addr) []byte {
	return serialize(t, ethernet(ownMAC, layers.EthernetTypeIPv4), ip4(to, layers.IPProtocolUDP), gopacket.Payload("0123456789abcdefghijklmnop"))
}

func TestRoom(t *testing.T) {
	for _, before := range []uint32{0, math.MaxUint32 - 1} { // frames given earlier: the counters wrap
		f := loaded(t)
		if err := f.SetSocket(0, xdpSocket(t)); err != nil {
			t.Fatal(err)
		}
		earlier, err := f.OpenRoom(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		earlier.shared.given.Store(before)
		earlier.shared.refused.Store(1000)
		if err := earlier.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := f.OpenRoom(0, 3)
		if err != nil {
			t.Fatal(err)
		}
		ours, kernels := udpTo(t, vip4), udpTo(t, other4)
		want := func(what string, fit int) {
			t.Helper()
			for i := range fit + 2 {
				verdict := uint32(xdpRedirect)
				if i >= fit {
					verdict = xdpDrop
				}
				if got := run(t, f.XDP(), ours); got != verdict {
					t.Errorf("%s: frame %d: verdict %d, want %d", what, i, got, verdict)
				}
				if got := run(t, f.XDP(), kernels); got != xdpPass {
					t.Errorf("%s: frame %d: verdict %d on a frame of the kernel's", what, i, got)
				}
			}
		}
		want("empty", 3)
		r.Took(2)
		want("two of three taken", 2)
		r.Even() // none of the three has arrived
		want("called even", 3)
		if got := r.Refused(); got != 6 {
			t.Errorf("%d frames refused, want 6", got)
		}
		tried := 0
		for range 640 { // full, as far as the program knows
			if run(t, f.XDP(), ours) == xdpRedirect {
				tried++
			}
		}
		if tried != 10 {
			t.Errorf("%d of 640 frames were tried without room, want one in 64", tried)
		}
		r.Took(4) // one that was on its way when it was called even
		want("one ahead", 4)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if got := run(t, f.XDP(), ours); got != xdpRedirect {
				t.Errorf("closed: verdict %d", got)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRoomsAreApart(t *testing.T) {
	f := loaded(t)
	if err := f.SetSocket(0, xdpSocket(t)); err != nil {
		t.Fatal(err)
	}
	last := int(f.objects.Maps[steerMapRooms].MaxEntries()) - 1
	for _, queue := range []int{1, last} { // a test run is on queue 0
		r, err := f.OpenRoom(queue, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var in [16]uint64 // room, as bpf(2) reads it
		if err := f.objects.Maps[steerMapRooms].Lookup(uint32(queue), &in); err != nil {
			t.Fatal(err)
		}
		if in[8] != 1<<32 { // taken 0, size 1
			t.Errorf("entry of queue %d: %x", queue, in)
		}
	}
	for range 10 {
		if got := run(t, f.XDP(), udpTo(t, vip4)); got != xdpRedirect {
			t.Errorf("verdict %d because of another queue", got)
		}
	}
	for _, queue := range []int{-1, last + 1} {
		if _, err := f.OpenRoom(queue, 1); err == nil {
			t.Errorf("opened queue %d", queue)
		}
	}
}
