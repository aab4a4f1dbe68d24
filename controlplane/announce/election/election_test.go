package election

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}) }

// bestOf returns which of the nodes has the best rank, and which the worst.
func bestOf(a netip.Addr, nodes ...string) (best, worst string) {
	best, worst = nodes[0], nodes[0]
	for _, n := range nodes[1:] {
		if Beats(a, n, best) {
			best = n
		}
		if Beats(a, worst, n) {
			worst = n
		}
	}
	return best, worst
}

func TestElect(t *testing.T) {
	a := addr(1)
	best, worst := bestOf(a, "lb1", "lb2", "lb3")
	for _, tc := range []struct {
		name       string
		candidates []Candidate
		want       string
	}{
		{"nobody", nil, ""},
		{"nobody is ready", []Candidate{{"lb1", None, true}}, ""},
		{"alone", []Candidate{{"lb1", Fully, false}}, "lb1"},
		{"alone and not well", []Candidate{{"lb1", Partly, false}}, "lb1"},
		{"nobody has it: by rank", []Candidate{{worst, Fully, false}, {best, Fully, false}}, best},
		{"whoever has it keeps it", []Candidate{{worst, Fully, true}, {best, Fully, false}}, worst},
		{"two have it: by rank", []Candidate{{worst, Fully, true}, {best, Fully, true}}, best},
		{"one that has it is not ready any more", []Candidate{{worst, None, true}, {best, Fully, false}}, best},
		{"one that has it is less ready", []Candidate{{worst, Fully, false}, {best, Partly, true}}, worst},
		{"none is quite ready", []Candidate{{worst, Partly, true}, {best, Partly, false}}, worst},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 10 {
				rand.Shuffle(len(tc.candidates), func(i, j int) {
					tc.candidates[i], tc.candidates[j] = tc.candidates[j], tc.candidates[i]
				})
				if got := Elect(a, tc.candidates); got != tc.want {
					t.Fatalf("%v: %q, want %q", tc.candidates, got, tc.want)
				}
			}
		})
	}
}

func TestBeatsIsAnOrder(t *testing.T) {
	nodes := []string{"lb1", "lb2", "lb3", "lb10", ""}
	for i := range 50 {
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b && Beats(addr(i), a, b) == Beats(addr(i), b, a) {
					t.Errorf("%q and %q both beat each other, or neither does", a, b)
				}
				for _, c := range nodes {
					if Beats(addr(i), a, b) && Beats(addr(i), b, c) && !Beats(addr(i), a, c) {
						t.Errorf("%q, %q, %q", a, b, c)
					}
				}
			}
		}
	}
}

func TestAddressesAreSpread(t *testing.T) {
	for _, nodes := range []int{2, 3, 5} {
		share := make(map[string]int)
		const n = 250
		for i := range n {
			var all []Candidate
			for j := range nodes {
				all = append(all, Candidate{Node: fmt.Sprintf("lb%d", j+1), Ready: Fully})
			}
			share[Elect(addr(i), all)]++
		}
		for node, got := range share {
			if got < n/nodes*6/10 || got > n/nodes*14/10 {
				t.Errorf("%d nodes: %s has %d of %d", nodes, node, got, n)
			}
		}
		if len(share) != nodes {
			t.Errorf("%d nodes: %v", nodes, share)
		}
	}
}

// A node that goes moves only what it had, one that comes moves nothing.
func TestOnlyWhatHasToMoves(t *testing.T) {
	for i := range 100 {
		three := []Candidate{{"lb1", Fully, false}, {"lb2", Fully, false}, {"lb3", Fully, false}}
		was := Elect(addr(i), three)
		for j := range three {
			three[j].Holds = three[j].Node == was
		}
		if got := Elect(addr(i), append(three, Candidate{"lb4", Fully, false})); got != was {
			t.Errorf("%v moved from %s to %s when a node came", addr(i), was, got)
		}
		if got := Elect(addr(i), three[:2]); was != "lb3" && got != was {
			t.Errorf("%v moved from %s to %s when lb3 went", addr(i), was, got)
		}
	}
}
