// Package maglev builds the lookup table that gives a packet's hash a backend.
//
// The problem it solves: several load balancers that share no state must send
// the same flow to the same backend, every backend must get its share of the
// flows, and when a backend comes or goes few of the other flows may move. A
// plain modulo moves nearly all of them. Maglev hashing ("Maglev: A Fast and
// Reliable Software Network Load Balancer", NSDI'16, section 3.4) lets every
// backend walk the table in an order of its own and take, in turns, the first
// slot that is still free; the look-up is one array access.
//
// A table depends on the set of names and weights and on nothing else: not on
// the order of the backends, the node, its architecture or the version of
// weir. Offset and skip of a backend's walk come from the SHA-256 of its name,
// with no key, since every node must find the same.
//
// A weight gives a backend turns in proportion, all the way to the last slot.
// (Weights that count in the first round only, as in Katran's first version,
// give wrong shares as soon as the table is larger than the sum of weights;
// the accumulated share is the idea of its second.)
package maglev

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// DefaultSize is the number of slots of a table, a prime: the paper's choice
// for up to about 650 backends (table size over 100 slots per backend keeps
// shares even within 1 %, NSDI'16 section 5.3).
const DefaultSize = 65537

// MaxBackends is the largest number of backends, as a slot has 16 bits.
const MaxBackends = math.MaxUint16

// Backend is one candidate for slots.
type Backend struct {
	Name   string // the identity that is hashed; unique in a table
	Weight uint32 // share of the slots, relative to the others; 0 gets none
}

// Build returns a table of size slots, each the index of a backend in
// backends, or nil if no backend has a weight. A backend gets its exact share
// of the slots, give or take a few; one whose share is below a single slot may
// get none.
//
// It is an error if size is not a prime or smaller than the number of backends
// with a weight, if there are more than MaxBackends, or if a name is there
// twice.
//
// The time goes with size times log(size), and, where one weight towers over
// the many others, with size times the number of backends.
func Build(size int, backends []Backend) ([]uint16, error) {
	if len(backends) > MaxBackends {
		return nil, fmt.Errorf("build table: %d backends, the most is %d", len(backends), MaxBackends)
	}
	if size > math.MaxInt32 || !IsPrime(size) {
		return nil, fmt.Errorf("build table: size %d is not a prime below 2^31", size)
	}
	walks, err := walksOf(uint32(size), backends)
	if err != nil {
		return nil, fmt.Errorf("build table: %w", err)
	}
	if len(walks) == 0 {
		return nil, nil
	}
	if len(walks) > size {
		return nil, fmt.Errorf("build table: %d slots are too few for %d backends", size, len(walks))
	}
	table := make([]uint16, size)
	populate(table, walks)
	return table, nil
}

// IsPrime tells whether n is a prime. It divides by every candidate up to the
// square root, good for any table that fits in memory.
func IsPrime(n int) bool {
	if n < 4 {
		return n > 1
	}
	if n%2 == 0 || n%3 == 0 {
		return false
	}
	for d := 5; d <= n/d; d += 6 {
		if n%d == 0 || n%(d+2) == 0 {
			return false
		}
	}
	return true
}

// walksOf returns the walks of the backends with a weight, in order of name.
//
// The first turn of a light backend comes after a part of its waiting time
// that its name decides. If all began with none, many light backends would
// take their turns in the same round, and the few heavy ones would, up to that
// round, have far more than their share.
func walksOf(size uint32, backends []Backend) ([]walk, error) {
	order := make([]int, len(backends))
	var heaviest uint64
	for i := range backends {
		order[i] = i
		heaviest = max(heaviest, uint64(backends[i].Weight))
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(backends[a].Name, backends[b].Name) })

	walks := make([]walk, 0, len(backends))
	for n, i := range order {
		b := &backends[i]
		if n > 0 && b.Name == backends[order[n-1]].Name {
			return nil, errors.New("backend " + b.Name + " is there twice")
		}
		if b.Weight == 0 {
			continue
		}
		sum := sha256.Sum256([]byte(b.Name))
		w := walk{
			next:    uint32(binary.BigEndian.Uint64(sum[0:]) % uint64(size)),
			weight:  uint64(b.Weight),
			credit:  uint64(binary.BigEndian.Uint32(sum[16:])) * heaviest >> 32,
			backend: uint16(i),
		}
		w.setSkip(uint32(binary.BigEndian.Uint64(sum[8:])%uint64(size-1))+1, size)
		walks = append(walks, w)
	}
	return walks, nil
}
