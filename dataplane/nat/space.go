package nat

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// BlockPorts is the number of ports in a block. Block n has the ports from
	// n*BlockPorts on.
	BlockPorts = 64

	// MaxAddresses is how many different SNAT addresses a Space can have seen.
	MaxAddresses = 4096

	blocksPerAddress = 1 << 16 / BlockPorts
)

// Space knows which worker owns which block of ports of which SNAT address.
type Space struct {
	mu    sync.Mutex
	slots map[[16]byte]uint16 // guarded by mu

	// Written once for each slot by the control plane, read by workers.
	tables [MaxAddresses]atomic.Pointer[owners]
}

// owners has the owner of each block of an address: the worker's number plus
// one, or 0 if the block is free. It changes from free to owned by
// compare-and-swap, by the worker that wants it, and back by a store, by the
// worker that has it.
type owners [blocksPerAddress]atomic.Uint32

// NewSpace returns a Space without addresses.
func NewSpace() *Space { return &Space{slots: map[[16]byte]uint16{}} }

// Slots returns the numbers by which the other methods know SNAT addresses
// (IPv4-mapped if they are IPv4), from 0 on in the order in which they first
// came; each new one allocates 4 KiB. An address keeps its number for good,
// because flows may still have it when the address has left the configuration.
// So an error says that there would be more than MaxAddresses since the start;
// none of addrs has got a number then.
//
// It takes a lock, and is for the control plane.
func (s *Space) Slots(addrs [][16]byte) ([]uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, err := s.number(addrs)
	if err != nil {
		return nil, err
	}
	for i, addr := range addrs {
		if _, known := s.slots[addr]; !known {
			s.slots[addr] = slots[i]
			s.tables[slots[i]].Store(new(owners))
		}
	}
	return slots, nil
}

// Preview returns what Slots would, but gives no number away.
func (s *Space) Preview(addrs [][16]byte) ([]uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number(addrs)
}

// number is called with mu held, and changes nothing.
func (s *Space) number(addrs [][16]byte) ([]uint16, error) {
	slots := make([]uint16, len(addrs))
	fresh := make(map[[16]byte]uint16)
	for i, addr := range addrs {
		slot, known := s.slots[addr]
		if !known {
			slot, known = fresh[addr]
		}
		if !known {
			slot = uint16(len(s.slots) + len(fresh))
			fresh[addr] = slot
		}
		slots[i] = slot
	}
	if len(s.slots)+len(fresh) > MaxAddresses {
		return nil, fmt.Errorf("number SNAT addresses: %d are new, and of the %d that there can be, %d are taken by addresses configured now or before (restart weir to forget old ones)",
			len(fresh), MaxAddresses, len(s.slots))
	}
	return slots, nil
}

// table returns the owners of a slot's blocks, nil if there is no such slot.
func (s *Space) table(slot uint16) *owners {
	if slot >= MaxAddresses {
		return nil
	}
	return s.tables[slot].Load()
}

// Claim gives worker a free block of slot that has at least one port in lo to
// hi, both inclusive. It looks at block from first and goes round and round; a
// block outside the range stands for the range's first. It reports false if
// there is no free block.
//
// Any goroutine may call it. It reads up to 1024 words, once for a flow that
// finds no port.
func (s *Space) Claim(slot, worker, lo, hi, from uint16) (block uint16, ok bool) {
	t := s.table(slot)
	if t == nil || lo > hi {
		return 0, false
	}
	first, last := lo/BlockPorts, hi/BlockPorts
	if from < first || from > last {
		from = first
	}
	block = from
	for range last - first + 1 {
		if t[block].Load() == 0 && t[block].CompareAndSwap(0, uint32(worker)+1) {
			return block, true
		}
		if block++; block > last {
			block = first
		}
	}
	return 0, false
}

// Release gives a block back. Only its owner may call it, once no flow has a
// port of the block any more.
func (s *Space) Release(slot, block uint16) {
	if t := s.table(slot); t != nil && block < blocksPerAddress {
		t[block].Store(0)
	}
}

// Owner returns the worker that has the flows of a port, and reports false if
// none has. Any goroutine may call it.
func (s *Space) Owner(slot, port uint16) (worker uint16, ok bool) {
	t := s.table(slot)
	if t == nil {
		return 0, false
	}
	word := t[port/BlockPorts].Load()
	return uint16(word - 1), word != 0
}

// ReleaseAll gives back what worker has, after it has ended. It is for the
// control plane.
func (s *Space) ReleaseAll(worker uint16) {
	for slot := range uint16(MaxAddresses) {
		t := s.table(slot)
		if t == nil {
			return // slots are given in order
		}
		for i := range t {
			t[i].CompareAndSwap(uint32(worker)+1, 0)
		}
	}
}
