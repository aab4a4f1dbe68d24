package l2

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"weir/controlplane/cluster"
)

// The real cluster, in real time, with everything else as in the other tests.
func TestWithARealCluster(t *testing.T) {
	w := newWorld(t)
	var first string
	var others []string
	start := func(name string, last byte) *weir {
		c, err := cluster.New(cluster.Config{
			Node: name, Bind: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 20, last}), 0),
			Peers: others, Key: bytes.Repeat([]byte{7}, 32),
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Listen(); err != nil {
			t.Fatal(err)
		}
		others = append(others, c.Addr().String())
		n := w.make(name, false)
		n.Announcer = New(name, c, slog.New(slog.DiscardHandler))
		n.Announcer.link = wire{n}
		n.SetInterfaces(eth1(name, true))
		n.Set(advertise(vips(10)...))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 2)
		go func() { done <- c.Run(ctx) }()
		go func() { done <- n.runUntil(ctx) }()
		n.stop = func() {
			cancel()
			for range 2 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			done <- nil
			done <- nil
		}
		t.Cleanup(n.stop)
		return n
	}
	owned := func() (map[string]int, bool) {
		share := make(map[string]int)
		for _, a := range vips(10) {
			all := w.holders(a)
			if len(all) != 1 {
				return nil, false
			}
			share[all[0]]++
		}
		return share, true
	}
	settled := func(is func(map[string]int) bool) time.Duration {
		begin := time.Now()
		until(t, func() (string, bool) {
			share, ok := owned()
			return w.story(), ok && is(share)
		})
		return time.Since(begin)
	}
	nodes := map[string]*weir{"lb1": start("lb1", 1), "lb2": start("lb2", 2)}
	settled(func(share map[string]int) bool { return true })
	share, _ := owned()
	for name := range share {
		first = name
	}
	nodes[first].stop()
	took := settled(func(share map[string]int) bool { return share[first] == 0 })
	t.Logf("of %v, all of %s moved in %v", share, first, took)
	for _, a := range vips(10) {
		if w.count(a) > 2 {
			t.Errorf("%v was taken %d times", a, w.count(a))
		}
	}
}
