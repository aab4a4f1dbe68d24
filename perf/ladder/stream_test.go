package ladder

import (
	"fmt"
	"testing"

	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
)

// In a round there is one well-formed packet of each flow, in turn or not, and
// the packets of a flow are always the same.
func TestClients(t *testing.T) {
	for _, m := range []Mode{DSR4, DSR6} {
		for _, proto := range Protocols() {
			for _, services := range []int{1, 3, 1000} {
				t.Run(fmt.Sprintf("%s/%s/services=%d", m, proto, services), func(t *testing.T) {
					c := Cell{Mode: m, Protocol: proto, Flows: 1 << 12, Services: services}
					inTurn := roundOf(t, c)
					if len(inTurn) != int(c.Flows) {
						t.Errorf("%d flows, want %d", len(inTurn), c.Flows)
					}
					vips := make(map[[16]byte]int)
					for tuple := range inTurn {
						vips[tuple.Dst]++
					}
					for n := range uint32(services) {
						if share := int(c.Flows) / services; vips[packet.Addr16(vipOf(m.client6(), n))] > 3*share {
							t.Errorf("service %d has %d flows, and its share is %d", n, vips[packet.Addr16(vipOf(m.client6(), n))], share)
						}
						delete(vips, packet.Addr16(vipOf(m.client6(), n)))
					}
					if len(vips) > 0 {
						t.Errorf("packets for no VIP: %v", vips)
					}
					c.Scattered = true
					scattered := roundOf(t, c)
					if len(scattered) != len(inTurn) {
						t.Errorf("%d flows when scattered, want %d", len(scattered), len(inTurn))
					}
					for tuple, frame := range scattered {
						if inTurn[tuple] != frame {
							t.Fatalf("flow %s has other packets when scattered", tuple)
						}
					}
				})
			}
		}
	}
}

// roundOf returns the frames of a round by flow, and fails if one is ill-formed or
// differs in the next round. The packets are parsed by weir's parser, which the
// ladder measures, after gopacket has found nothing wrong with them.
func roundOf(t *testing.T, c Cell) map[packet.Tuple]string {
	t.Helper()
	frames := make(map[packet.Tuple]string)
	r := &rig{cell: c}
	s := r.clients(packet.TCPAck)
	b, err := newBuffers(2*forward.BatchSize, forward.BatchSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	var batch [forward.BatchSize]queue.Frame
	for round := range 2 {
		for range c.Flows / forward.BatchSize {
			b.lend(batch[:])
			s.fill(batch[:])
			for i := range batch {
				f := batch[i].Bytes()
				if err := packettest.CheckWellFormed(f); err != nil {
					t.Fatalf("%x: %v", f, err)
				}
				var p packet.Parsed
				p.Decode(f)
				if round > 0 && frames[p.Tuple] != string(f) {
					t.Fatalf("another packet in round %d: %x", round, f)
				}
				frames[p.Tuple] = string(f)
				clear(batch[i].Buf) // as rewriting it might
			}
		}
	}
	return frames
}

// Any key makes a packet with right checksums, that of a computed zero too.
func TestTemplate(t *testing.T) {
	f := queue.Frame{Buf: make([]byte, bufferSize)}
	for _, v6 := range []bool{false, true} {
		for _, proto := range Protocols() {
			template := newTemplate(weirMAC, clientMAC, address(v6, clientNet, 0), vipOf(v6, 0), proto, packet.TCPAck)
			keys := []key{{}, {0xffff, 0xffff, 0xffff, 0xffff}, {0xffff, 0, 0, 0}, {1, 0xfffe, 0, 0xffff}}
			for n := range uint16(1 << 12) {
				keys = append(keys, key{n, n * 7, n * 31, 9})
			}
			// One of these makes the transport checksum zero.
			zero := uint16(packet.Fold(0xffff - uint32(packet.Fold(template.sum))))
			keys = append(keys, key{srcPort: zero}, key{srcPort: zero - 1}, key{srcPort: zero + 1})
			for _, k := range keys {
				template.put(&f, k)
				if err := packettest.CheckWellFormed(f.Bytes()); err != nil {
					t.Fatalf("%s, IPv6 %v, %+v: %x: %v", proto, v6, k, f.Bytes(), err)
				}
			}
		}
	}
}

// Packets of two batches that follow each other lie in different buffers, and
// all buffers are used, whatever the size of a batch. With too few there are none.
func TestBuffers(t *testing.T) {
	for _, test := range []struct{ buffers, batch, lent int }{
		{3 * forward.BatchSize, forward.BatchSize, 3 * forward.BatchSize},
		{fewBuffers(forward.BatchSize), forward.BatchSize, fewBuffers(forward.BatchSize) / forward.BatchSize * forward.BatchSize},
		{fewBuffers(8), 8, 64},
		{fewBuffers(64), 64, 64},
		{fewBuffers(256), 256, 256},
		{64, 48, 48}, // the rest is no batch
		{64, 128, 0},
		{0, 1, 0},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			b, err := newBuffers(test.buffers, test.batch)
			if (err == nil) != (test.lent > 0) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			defer b.close()
			frames := make([]queue.Frame, test.batch)
			seen := make(map[*byte]int)
			for range 2 * test.lent / test.batch {
				b.lend(frames)
				for i := range frames {
					if len(frames[i].Buf) != bufferSize {
						t.Fatalf("buffer of %d bytes", len(frames[i].Buf))
					}
					seen[&frames[i].Buf[0]]++
				}
			}
			if len(seen) != test.lent {
				t.Errorf("%d buffers were lent, want %d", len(seen), test.lent)
			}
			for _, n := range seen {
				if n != 2 {
					t.Fatalf("a buffer was lent %d times, want 2", n)
				}
			}
		})
	}
}
