package snapshot_test

import (
	"strings"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
)

func node(t *testing.T, n byte, egress uint16) snapshot.SpreadMember {
	t.Helper()
	rw, err := rewrite.DSR(rewrite.Link{Egress: egress, Dst: packet.MAC{2, 0, 0, 0, 0, n}, MTU: 1500}, false)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.SpreadMember{Rewrite: rw}
}

func self() snapshot.SpreadMember { return snapshot.SpreadMember{Self: true} }

// spreadSpec has vip4 with a service that is direct on tcp/80 and one that is NAT
// on tcp/81, vip6 with one that is direct, and a SNAT address.
func spreadSpec(spreads ...snapshot.Spread) snapshot.Spec {
	spec := snapshot.Spec{
		Interfaces: make([]snapshot.Interface, 2), Services: services(3), Spreads: spreads,
		VIPs: []snapshot.VIPSpec{
			{Addr: vip4, Proto: tcp, Lo: 80, Hi: 80},
			{Addr: vip4, Proto: tcp, Lo: 81, Hi: 81, Service: 1},
			{Addr: vip6, Proto: udp, Lo: 80, Hi: 80, Service: 2},
		},
		SNAT: []snapshot.SNAT{snat("10.0.0.240", 0)},
	}
	spec.Services[1].Mode = snapshot.NAT
	return spec
}

func TestSpread(t *testing.T) {
	members := []snapshot.SpreadMember{node(t, 1, 0), self(), node(t, 2, 1)}
	table := []uint16{0, 1, 2, 0, 1, 2, 0}
	spec := spreadSpec(
		snapshot.Spread{Addr: vip4, Table: table, Members: members},
		snapshot.Spread{Addr: vip6, Members: members}, // an empty table
		snapshot.Spread{Addr: addr16("192.0.2.9"), Table: table, Members: members},
		snapshot.Spread{Addr: addr16("10.0.0.240"), Table: table, Members: members},
	)
	s, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	spread := s.VIP(&vip4).Spread
	if spread == nil || s.VIP(&vip6).Spread != nil {
		t.Fatalf("spreads %v and %v", spread, s.VIP(&vip6).Spread)
	}
	snatted := addr16("10.0.0.240")
	if s.VIP(&snatted).Spread != nil {
		t.Error("a SNAT address is spread")
	}
	for i, want := range []bool{true, false, false} {
		if got := s.Services[i].Spread(); got != want {
			t.Errorf("service %d is spread: %t", i, got)
		}
	}
	for station, want := range map[packet.MAC]bool{
		{2, 0, 0, 0, 0, 1}: true, {2, 0, 0, 0, 0, 2}: true, {2, 0, 0, 0, 0, 3}: false, {}: false,
	} {
		if spread.Is(station) != want {
			t.Errorf("%s is a member: %t", station, !want)
		}
	}
	// Services that were spread before are not for ever.
	spec.Spreads = nil
	if s, err = snapshot.New(spec); err != nil || s.Services[0].Spread() || s.VIP(&vip4).Spread != nil {
		t.Errorf("still spread; error %v", err)
	}
}

// The choice is fixed for all time: a flow changes its node if a new version of
// weir chooses otherwise. The numbers are from another implementation.
func TestMemberIsTheSameEverywhere(t *testing.T) {
	members := make([]snapshot.SpreadMember, 1021)
	spread := snapshot.Spread{Members: members}
	for i := range members {
		spread.Table = append(spread.Table, uint16(i))
	}
	tuple := packet.Tuple{Src: addr16("192.0.2.1"), Dst: vip4, SrcPort: 1234, DstPort: 80, Proto: tcp}
	for _, test := range []struct {
		svc  snapshot.Service
		want int
	}{
		{snapshot.Service{}, 841},
		{snapshot.Service{Affinity: snapshot.AffinitySource, AffinityBits: 24}, 163},
	} {
		got := spread.Member(&test.svc, &tuple)
		if got != &members[test.want] {
			for i := range members {
				if got == &members[i] {
					t.Errorf("affinity %d: member %d, want %d", test.svc.Affinity, i, test.want)
				}
			}
		}
	}
}

func TestSpreadErrors(t *testing.T) {
	nowhere := snapshot.SpreadMember{}
	group, err := rewrite.DSR(rewrite.Link{Dst: packet.MAC{1}, MTU: 1500}, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		members []snapshot.SpreadMember
		want    string
	}{
		"nobody":       {nil, "spread 203.0.113.10: 0 of its members are this node"},
		"not here":     {[]snapshot.SpreadMember{node(t, 1, 0)}, "0 of its members are this node"},
		"twice here":   {[]snapshot.SpreadMember{self(), node(t, 1, 0), self()}, "2 of its members are this node"},
		"nowhere":      {[]snapshot.SpreadMember{self(), nowhere}, "member 1 is at no station: 00:00:00:00:00:00"},
		"group":        {[]snapshot.SpreadMember{self(), {Rewrite: group}}, "member 1 is at no station: 01:00:00:00:00:00"},
		"no interface": {[]snapshot.SpreadMember{node(t, 1, 2), self()}, "member 0: there is no interface 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := snapshot.New(spreadSpec(snapshot.Spread{Addr: vip4, Table: []uint16{0}, Members: test.members}))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestSilent(t *testing.T) {
	spec := spreadSpec()
	spec.SNAT = append(spec.SNAT, snat("10.0.0.241", 1), snat("10.0.0.242", 2))
	spec.SNAT[1].Silent = true
	spec.Policies = []snapshot.VIPPolicy{{Addr: vip4, Silent: true}, {Addr: addr16("10.0.0.242"), Silent: true}}
	s, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"203.0.113.10": true, "2001:db8:1::10": false, "10.0.0.240": false, "10.0.0.241": true, "10.0.0.242": true,
	} {
		a := addr16(addr)
		if got := s.VIP(&a).Silent(); got != want {
			t.Errorf("%s silent: %t", addr, got)
		}
	}
}
