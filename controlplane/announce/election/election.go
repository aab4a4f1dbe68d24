// Package election says which of several nodes is to have an address.
//
// The problem it solves: every node has to come to the same answer by itself, from
// what all of them have published, without a vote; addresses are to be spread over
// the nodes; and nothing that works may move, since each move breaks flows. So the
// answer is a pure function: whoever has the address keeps it, and only an address
// that nobody has goes to the node with the best hash.
package election

import (
	"crypto/sha256"
	"net/netip"
	"slices"
)

// Readiness is how well a node could serve an address.
type Readiness uint8

// The grades of readiness.
const (
	None   Readiness = iota
	Partly           // some of the links that the address belongs on are not up
	Fully
)

// Candidate is a node that lives, as far as one address is concerned.
type Candidate struct {
	Node  string
	Ready Readiness
	Holds bool // it has the address now
}

// Elect returns the node that is to have the address; empty if none of the
// candidates is ready for it. Only the candidates with the best readiness count.
// Of these, one that holds it keeps it; among several that do, or if none does,
// rank decides. The order of candidates means nothing.
func Elect(addr netip.Addr, candidates []Candidate) string {
	var best Candidate
	for _, c := range candidates {
		if c.Ready != None && (best.Ready == None || better(addr, c, best)) {
			best = c
		}
	}
	return best.Node
}

func better(addr netip.Addr, a, b Candidate) bool {
	if a.Ready != b.Ready {
		return a.Ready > b.Ready
	}
	if a.Holds != b.Holds {
		return a.Holds
	}
	return Beats(addr, a.Node, b.Node)
}

// Beats reports whether node a has the better rank for the address than b. The rank
// is a hash of both, so that each node is the best for its share of addresses. Of
// two different nodes exactly one beats the other.
func Beats(addr netip.Addr, a, b string) bool {
	x, y := rank(addr, a), rank(addr, b)
	if c := slices.Compare(x[:], y[:]); c != 0 {
		return c > 0
	}
	return a > b
}

func rank(addr netip.Addr, node string) [sha256.Size]byte {
	return sha256.Sum256([]byte(node + " " + addr.String()))
}
