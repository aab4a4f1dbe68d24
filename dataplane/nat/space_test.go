package nat

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"weir/dataplane/packet"
)

func addr(t testing.TB, s string) [16]byte {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return packet.Addr16(a)
}

// newSpace returns a Space with the slots 0 to slots-1.
func newSpace(t testing.TB, slots int) *Space {
	t.Helper()
	s := NewSpace()
	got, err := s.Slots(prefix(10, slots))
	if err != nil || len(got) != slots {
		t.Fatalf("%d slots: %v, %v", slots, got, err)
	}
	for i, slot := range got {
		if int(slot) != i {
			t.Fatalf("slot %d is %d", i, slot)
		}
	}
	return s
}

// prefix returns the first n addresses of first.0.0.0/16.
func prefix(first byte, n int) [][16]byte {
	addrs := make([][16]byte, n)
	for i := range addrs {
		addrs[i] = packet.Mapped([4]byte{first, 0, byte(i >> 8), byte(i)})
	}
	return addrs
}

func TestSlots(t *testing.T) {
	s := NewSpace()
	for _, row := range []struct {
		addrs []string
		want  []uint16
	}{
		{nil, nil},
		{[]string{"10.0.0.240"}, []uint16{0}},
		{[]string{"fd00::f0", "10.0.0.240", "fd00::f0"}, []uint16{1, 0, 1}},
		{[]string{"::ffff:10.0.0.240", "10.0.0.241"}, []uint16{0, 2}},
		{[]string{"10.0.0.243", "fd00::f0", "10.0.0.242"}, []uint16{3, 1, 4}},
	} {
		var addrs [][16]byte
		for _, a := range row.addrs {
			addrs = append(addrs, addr(t, a))
		}
		// The first must not change what the others say.
		for i, number := range []func([][16]byte) ([]uint16, error){s.Preview, s.Slots, s.Slots} {
			if slots, err := number(addrs); err != nil || !slices.Equal(slots, row.want) {
				t.Errorf("slots of %v, call %d: %d, %v, want %d", row.addrs, i, slots, err, row.want)
			}
		}
	}
}

func TestSlotsRunOut(t *testing.T) {
	s := newSpace(t, 1)
	for i, number := range []func([][16]byte) ([]uint16, error){s.Preview, s.Slots, s.Slots} {
		if _, err := number(prefix(11, MaxAddresses)); err == nil || !strings.Contains(err.Error(), "4096 are new") || !strings.Contains(err.Error(), "1 are taken") {
			t.Errorf("one address too many, call %d: error %v", i, err)
		}
	}
	if slots, err := s.Slots(prefix(12, MaxAddresses-1)); err != nil || slots[0] != 1 || slots[MaxAddresses-2] != MaxAddresses-1 {
		t.Fatalf("the rest, after those that did not fit: %v", err)
	}
	if _, err := s.Slots([][16]byte{addr(t, "10.0.0.0"), addr(t, "192.0.2.1")}); err == nil || !strings.Contains(err.Error(), "1 are new") {
		t.Errorf("another when full: error %v", err)
	}
	if slots, err := s.Slots([][16]byte{addr(t, "12.0.0.7"), addr(t, "10.0.0.0")}); err != nil || !slices.Equal(slots, []uint16{8, 0}) {
		t.Errorf("old addresses when full: %d, %v", slots, err)
	}
	if block, ok := s.Claim(MaxAddresses-1, 0, 0, 65535, 1023); !ok || block != 1023 {
		t.Errorf("claim of the last slot: %d, %v, want block 1023", block, ok)
	}
}

func TestClaim(t *testing.T) {
	const none = -1
	for _, row := range []struct {
		name         string
		lo, hi, from uint16
		taken        []uint16
		want         int
	}{
		{"at from", 1024, 65535, 500, nil, 500},
		{"next one", 1024, 65535, 500, []uint16{500, 501}, 502},
		{"last block", 1024, 65535, 1023, nil, 1023},
		{"round the end", 1024, 65535, 1023, []uint16{1023}, 16},
		{"from below", 1024, 65535, 3, nil, 16},
		{"from above", 1024, 2047, 900, nil, 16},
		{"one port at the end of a block", 127, 127, 0, nil, 1},
		{"one port at the start of a block", 128, 128, 0, nil, 2},
		{"all ports", 0, 65535, 0, nil, 0},
		{"two blocks, one taken", 127, 128, 2, []uint16{2}, 1},
		{"two blocks, both taken", 127, 128, 1, []uint16{1, 2}, none},
		{"one block, taken", 64, 127, 1, []uint16{1}, none},
		{"empty range", 128, 127, 1, nil, none},
		{"empty range within a block", 129, 128, 2, nil, none},
		{"empty range over many blocks", 65535, 0, 500, nil, none},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSpace(t, 1)
			for _, b := range row.taken {
				if got, ok := s.Claim(0, 9, b*BlockPorts, b*BlockPorts, b); !ok || got != b {
					t.Fatalf("claim %d: %d, %v", b, got, ok)
				}
			}
			block, ok := s.Claim(0, 5, row.lo, row.hi, row.from)
			if got := int(block); ok != (row.want != none) || ok && got != row.want {
				t.Errorf("claimed %d, %v, want %d", got, ok, row.want)
			}
			for b := range uint16(blocksPerAddress) {
				owner := none
				if ok && b == block {
					owner = 5
				}
				for _, other := range row.taken {
					if b == other {
						owner = 9
					}
				}
				for _, port := range []uint16{b * BlockPorts, b*BlockPorts + 63} {
					if w, ok := s.Owner(0, port); ok != (owner != none) || ok && int(w) != owner {
						t.Errorf("owner of port %d: %d, %v, want %d", port, w, ok, owner)
					}
				}
			}
		})
	}
}

func TestUnknownSlots(t *testing.T) {
	s := newSpace(t, 1)
	for _, slot := range []uint16{1, MaxAddresses - 1, MaxAddresses, 65535} {
		if b, ok := s.Claim(slot, 0, 0, 65535, 0); ok {
			t.Errorf("claim in slot %d: %d", slot, b)
		}
		if w, ok := s.Owner(slot, 1024); ok {
			t.Errorf("owner in slot %d: %d", slot, w)
		}
		s.Release(slot, 0)
	}
	s.Release(0, 65535)
}

func TestRelease(t *testing.T) {
	s := newSpace(t, 3)
	for slot := range uint16(3) {
		for worker := range uint16(4) {
			s.Claim(slot, worker, 0, 255, 0)
		}
	}
	s.Release(1, 2)
	if w, ok := s.Owner(1, 128); ok {
		t.Errorf("the released block has owner %d", w)
	}
	s.ReleaseAll(3)
	for slot := range uint16(3) {
		for block := range uint16(4) {
			want := block != 3 && (slot != 1 || block != 2)
			if w, ok := s.Owner(slot, block*BlockPorts); ok != want || ok && w != block {
				t.Errorf("slot %d, block %d: owner %d, %v, want %v", slot, block, w, ok, want)
			}
		}
	}
	if b, ok := s.Claim(2, 7, 0, 255, 0); !ok || b != 3 {
		t.Errorf("claim after ReleaseAll: %d, %v, want 3", b, ok)
	}
}

// Two that want the same block at the same moment do not both get it.
func TestClaimIsExclusive(t *testing.T) {
	s := newSpace(t, 1)
	var holder atomic.Int32
	var wait sync.WaitGroup
	for worker := range uint16(2) {
		wait.Go(func() {
			for range 100000 {
				if _, ok := s.Claim(0, worker, 64, 127, 1); ok {
					if n := holder.Add(1); n != 1 {
						t.Errorf("the block has %d owners", n)
						return
					}
					holder.Add(-1)
					s.Release(0, 1)
				}
			}
		})
	}
	wait.Wait()
}

// Whatever many claim and release at once, a block has one owner at a time.
func TestSpaceConcurrent(t *testing.T) {
	const workers, slots, rounds = 6, 2, 3000
	s := newSpace(t, slots)
	var holder [slots][blocksPerAddress]atomic.Int32 // the oracle: worker + 1
	var wait sync.WaitGroup
	for worker := range uint16(workers) {
		wait.Go(func() {
			type held struct{ slot, block uint16 }
			var own []held
			for round := range uint16(rounds) {
				slot := round % slots
				// 32 blocks for 6 workers: there is always someone in the way.
				if block, ok := s.Claim(slot, worker, 1024, 1024+32*BlockPorts-1, 16+round*7%32); ok {
					if !holder[slot][block].CompareAndSwap(0, int32(worker)+1) {
						t.Errorf("block %d of slot %d has two owners", block, slot)
						return
					}
					own = append(own, held{slot, block})
				}
				for _, h := range own {
					if w, ok := s.Owner(h.slot, h.block*BlockPorts+5); !ok || w != worker {
						t.Errorf("owner of a block of worker %d: %d, %v", worker, w, ok)
						return
					}
				}
				if len(own) > int(round%11) {
					h := own[0]
					own = own[1:]
					holder[h.slot][h.block].Store(0)
					s.Release(h.slot, h.block)
				}
			}
			for _, h := range own {
				holder[h.slot][h.block].Store(0)
			}
			s.ReleaseAll(worker)
		})
	}
	// The control plane adds addresses meanwhile.
	wait.Go(func() {
		for i := range 200 {
			if _, err := s.Slots([][16]byte{packet.Mapped([4]byte{172, 16, 0, byte(i)})}); err != nil {
				t.Error(err)
			}
		}
	})
	wait.Wait()
	for slot := range uint16(slots) {
		for block := range uint16(blocksPerAddress) {
			if w, ok := s.Owner(slot, block*BlockPorts); ok {
				t.Errorf("block %d is left with worker %d", block, w)
			}
		}
	}
}
