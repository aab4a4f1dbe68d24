package appliance

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weir/controlplane/announce/bgp"
	"weir/controlplane/config"
	"weir/controlplane/ipam"
)

// While addresses change from one configuration's pools to another's, none is
// announced to a peer that neither says.
func TestWithPools(t *testing.T) {
	peers := []bgp.Peer{{Name: "r1"}, {Name: "r2"}}
	after := bgp.Config{Peers: peers, Pools: map[string]bgp.Pool{"stays": {Communities: []string{"1:2"}}}}
	got := withPools(after, map[string]bgp.Pool{
		"stays": {Communities: []string{"no-export"}},
		"all":   {Aggregation: 24},
		"some":  {Peers: []string{"r1", "gone"}},
		"none":  {Peers: []string{"gone"}},
	}).Pools
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"all", "none", "some", "stays"}) {
		t.Fatalf("pools are %v", names)
	}
	if !slices.Equal(got["stays"].Communities, []string{"1:2"}) || got["all"].Aggregation != 24 || got["all"].Nobody ||
		!slices.Equal(got["some"].Peers, []string{"r1"}) || got["some"].Nobody || !got["none"].Nobody {
		t.Errorf("pools are %+v", got)
	}
}

func TestRouterID(t *testing.T) {
	host := &config.Host{Addresses: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("fd00::2/64"), netip.MustParsePrefix("10.0.0.2/24"),
	}}
	cfg := &config.Config{BGP: &config.BGP{}}
	if id, err := routerID(cfg, host); err != nil || id.String() != "10.0.0.2" {
		t.Errorf("it is %v, error %v", id, err)
	}
	if _, err := routerID(cfg, &config.Host{Addresses: host.Addresses[:2]}); err == nil {
		t.Error("a box without IPv4 has one")
	}
	cfg.BGP.RouterID = netip.MustParseAddr("192.0.2.1")
	if id, err := routerID(cfg, host); err != nil || id.String() != "192.0.2.1" {
		t.Errorf("it is %v, error %v", id, err)
	}
}

// What a node has given before it heard of others counts after theirs, whatever
// its clock says; once.
func TestFreshAllocationsAreYoung(t *testing.T) {
	old, now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(service string, since time.Time) ipam.Allocation {
		return ipam.Allocation{Service: service, Pool: "public", Address: netip.MustParseAddr("203.0.113.1"), Since: since}
	}
	a := addresses{log: slog.New(slog.DiscardHandler), store: ipam.NewStore(t.TempDir())}
	a.begin(ipam.Result{Allocations: []ipam.Allocation{at("kept", old), at("new", old)}}, []ipam.Allocation{at("kept", old)})
	others := []ipam.Allocation{at("theirs", now), at("another", now.Add(-time.Hour))}
	first := a.claims(others)
	if !first[0].Since.Equal(old) || !first[1].Since.After(now) {
		t.Errorf("claims are %v", first)
	}
	if again := a.claims(others); !again[1].Since.After(now) {
		t.Errorf("after what could not be taken over, claims are %v", again)
	}
	a.settle()
	if second := a.claims(others); !second[1].Since.Equal(old) {
		t.Errorf("claims are made younger again: %v", second)
	}
	if given, err := a.store.Load(); err != nil || len(given) != 2 {
		t.Errorf("saved are %v, error %v", given, err)
	}
}
