package bgp

import (
	"context"
	"net/netip"
	"testing"

	"weir/controlplane/announce"
	"weir/controlplane/announce/announcetest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// ads makes advertisements out of addresses, each with "@pool" or without.
func ads(texts ...string) []announce.Advertisement {
	var all []announce.Advertisement
	for _, text := range texts {
		address, pool := text, ""
		for i := range text {
			if text[i] == '@' {
				address, pool = text[:i], text[i+1:]
			}
		}
		all = append(all, announce.Advertisement{Address: addr(address), Pool: pool})
	}
	return all
}

// config is one of a speaker with one router.
func config(speaker netip.AddrPort, router netip.Addr) Config {
	return Config{
		ASN: ours, RouterID: addr("192.0.2.1"), Listen: speaker, NextHop6: addr("2001:db8::2"),
		Peers: []Peer{{Name: "r1", Address: router, ASN: theirs, Port: 1790, IPv4: true, IPv6: true}},
		Pools: make(map[string]Pool),
	}
}

func newSpeaker(t *testing.T, c Config) (*Speaker, *diary) {
	t.Helper()
	d, log := newDiary(t)
	s, err := New(c, log)
	if err != nil {
		t.Fatal(err)
	}
	return s, d
}

// start runs a speaker until the test ends.
func start(t *testing.T, s *Speaker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestContract(t *testing.T) {
	for _, c := range announcetest.Contract() {
		t.Run(c.Name, func(t *testing.T) {
			at, router := site()
			s, _ := newSpeaker(t, config(at, router))
			f := newFakeRouter(t, at, router, theirs)
			c.Run(t, announcetest.Subject{Announcer: s, Ads: ads("203.0.113.10", "203.0.113.11", "2001:db8:1::1"), Told: f.told})
		})
	}
}
