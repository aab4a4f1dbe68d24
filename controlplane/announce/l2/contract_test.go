package l2

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"

	"weir/controlplane/announce"
	"weir/controlplane/announce/announcetest"
)

func TestKeepsTheContract(t *testing.T) {
	for _, clustered := range []bool{false, true} {
		name := "alone"
		if clustered {
			name = "in a cluster"
		}
		t.Run(name, func(t *testing.T) {
			for _, c := range announcetest.Contract() {
				t.Run(c.Name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						n := w.make("lb1", clustered)
						c.Run(t, announcetest.Subject{
							Announcer: runs{n},
							Ads:       advertise(vip4(), vip6(), netip.MustParseAddr("203.0.113.9")),
							Told:      func() []netip.Prefix { return w.told(n) },
						})
						w.check()
					})
				})
			}
		})
	}
}

// runs is a node as an announcer that brings its workers.
type runs struct{ *weir }

func (r runs) Run(ctx context.Context) error { return r.runUntil(ctx) }

// Changes is passed on by the workers, who listen to the real one.
func (r runs) Changes() <-chan struct{} { return r.applied }

// told returns the addresses that a host on the link finds at a node: its workers
// answer, and its announcement was the last.
func (w *world) told(n *weir) []netip.Prefix {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []netip.Prefix
	for a := range n.answers {
		if w.believed[a] == n.mac {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}

var _ announce.Announcer = (*Announcer)(nil)
