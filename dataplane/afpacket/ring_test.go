package afpacket

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

func TestGeometry(t *testing.T) {
	for _, tc := range []struct {
		name              string
		mtu, size, slots  int
		wantSize, wantNum int
		ok                bool
	}{
		{"default", 1500, 0, 0, 2048, 4096, true},
		{"jumbo", 9000, 0, 0, 16384, 4096, true},
		{"smallest MTU", 68, 0, 0, 512, 4096, true},
		{"slots fill blocks", 1500, 0, 1, 2048, 32, true},
		{"size given", 1500, 3000, 10, 4096, 16, true},
		{"power of two given", 1500, 4096, 16, 4096, 16, true},
		{"loopback's MTU", 65536, 0, 0, 0, 0, false},
		{"too small", 1500, 100, 0, 0, 0, false},
		{"negative size", 1500, -1, 0, 0, 0, false},
		{"negative slots", 1500, 0, -1, 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g, err := newGeometry(tc.mtu, tc.size, tc.slots)
			if (err == nil) != tc.ok {
				t.Fatalf("error is %v", err)
			}
			if g.size != tc.wantSize || g.slots != tc.wantNum {
				t.Errorf("%d slots of %d, want %d of %d", g.slots, g.size, tc.wantNum, tc.wantSize)
			}
			if !tc.ok {
				return
			}
			// The kernel's own conditions (packet_set_ring).
			r := g.request()
			if r.Block_size%4096 != 0 || r.Frame_size%unix.TPACKET_ALIGNMENT != 0 ||
				r.Block_size/r.Frame_size*r.Block_nr != r.Frame_nr || int(r.Block_size*r.Block_nr) != g.bytes() {
				t.Errorf("request %+v", *r)
			}
			if tc.size == 0 && frameStart+ethernetHeader+2*vlanTag+tc.mtu > g.size {
				t.Errorf("a frame does not fit")
			}
		})
	}
}

// fill does what the kernel does when a frame arrives.
func fill(r *ring, slot int, status uint32, frame []byte, h unix.Tpacket2Hdr) {
	h.Mac, h.Net = frameStart, frameStart+ethernetHeader
	if h.Len == 0 {
		h.Len = uint32(len(frame))
	}
	h.Snaplen = uint32(len(frame))
	copy(r.mem[slot*r.size+frameStart:], frame)
	h.Status = unix.TP_STATUS_USER | status
	*r.header(slot) = h
}

func TestRing(t *testing.T) {
	geo := geometry{size: 512, block: 2048, slots: 4}
	r := newRing(geo, make([]byte, geo.bytes()))
	want := func(frame byte) queue.Frame {
		t.Helper()
		var f queue.Frame
		if ok, usable := r.receive(&f); !ok || !usable || f.Bytes()[0] != frame {
			t.Fatalf("got %v %v %v, want frame %d", ok, usable, f.Bytes(), frame)
		}
		return f
	}
	wantNone := func() {
		t.Helper()
		if ok, _ := r.receive(new(queue.Frame)); ok {
			t.Fatal("received a frame that is not there")
		}
	}
	put := func(slot int, frame byte) { fill(&r, slot, 0, bytes.Repeat([]byte{frame}, 60), unix.Tpacket2Hdr{}) }

	wantNone()
	put(1, 11) // the kernel may finish the second first
	wantNone()
	put(0, 10)
	a, b := want(10), want(11)
	wantNone()
	put(2, 12)
	put(3, 13)
	c, d := want(12), want(13)
	wantNone() // the ring has come round to a slot that is lent
	r.release(int(b.ID))
	r.release(int(d.ID))
	wantNone()
	r.release(int(a.ID))
	wantNone()
	put(0, 14)
	want(14)
	put(1, 15)
	want(15)
	wantNone()
	r.release(int(c.ID))
	put(2, 16)
	want(16)

	defer func() {
		if recover() == nil {
			t.Error("giving a slot back twice went unnoticed")
		}
	}()
	r.release(int(d.ID))
}

func TestPrepare(t *testing.T) {
	frame := bytes.Repeat([]byte{0xaa}, 60)
	for i := range frame {
		frame[i] = byte(i)
	}
	for _, tc := range []struct {
		name   string
		frame  []byte
		status uint32
		header unix.Tpacket2Hdr
		want   []byte // nil if unusable
	}{
		{"plain", frame, 0, unix.Tpacket2Hdr{}, frame},
		{"cut off", frame, 0, unix.Tpacket2Hdr{Len: 61}, nil},
		{"runt", frame[:13], 0, unix.Tpacket2Hdr{}, nil},
		{"shortest", frame[:14], 0, unix.Tpacket2Hdr{}, frame[:14]},
		{"tag without TPID", frame, unix.TP_STATUS_VLAN_VALID, unix.Tpacket2Hdr{Vlan_tci: 5}, tagged(frame, 0x8100, 5)},
		{"tag 0", frame, unix.TP_STATUS_VLAN_VALID | unix.TP_STATUS_VLAN_TPID_VALID,
			unix.Tpacket2Hdr{Vlan_tpid: 0x88a8}, tagged(frame, 0x88a8, 0)},
		{"stale tag", frame, 0, unix.Tpacket2Hdr{Vlan_tci: 5, Vlan_tpid: 0x8100}, frame},
		{"unknown unfinished checksum", frame, unix.TP_STATUS_CSUMNOTREADY, unix.Tpacket2Hdr{}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			geo := geometry{size: 512, block: 512, slots: 1}
			r := newRing(geo, make([]byte, geo.bytes()))
			fill(&r, 0, tc.status, tc.frame, tc.header)
			var f queue.Frame
			ok, usable := r.receive(&f)
			if !ok || usable != (tc.want != nil) {
				t.Fatalf("ok %v, usable %v", ok, usable)
			}
			if !usable {
				if r.lent[0] || r.header(0).Status != unix.TP_STATUS_KERNEL {
					t.Error("the slot was not given back")
				}
				return
			}
			if !bytes.Equal(f.Bytes(), tc.want) {
				t.Errorf("got %x, want %x", f.Bytes(), tc.want)
			}
			if f.Start < queue.Headroom {
				t.Errorf("headroom is %d", f.Start)
			}
		})
	}
}
