package steer

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"weir/dataplane/packet"
)

// inKernel returns what is in a map.
func inKernel[K, V comparable](t *testing.T, f *Filter, name string) map[K]V {
	t.Helper()
	got := make(map[K]V)
	var key K
	var value V
	entries := f.objects.Maps[name].Iterate()
	for entries.Next(&key, &value) {
		got[key] = value
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

// same fails if a map has anything but what it should.
func same[K, V comparable](t *testing.T, f *Filter, name string, want map[K]V) {
	t.Helper()
	if got := inKernel[K, V](t, f, name); !maps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
}

// keys are addresses as the programs look for them.
func keys(addrs ...netip.Addr) map[address]flags {
	m := make(map[address]flags)
	for _, a := range addrs {
		m[a.As16()] = 0
	}
	return m
}

func TestSteer(t *testing.T) {
	f := loaded(t)
	third := netip.MustParseAddr("192.0.2.1")
	mapped := netip.AddrFrom16(third.As16())
	key := func(a netip.Addr, proto uint16, hi, lo byte) endpoint {
		return endpoint{a.As16(), proto, [2]byte{hi, lo}}
	}
	dns := Answers{backend4, packet.ProtoUDP, 53}
	for i, test := range []struct {
		set     Set
		vips    map[address]flags
		locals  map[address]flags
		tunnels map[address]flags
		shared  map[address]ports
		answers map[endpoint]flags
		uses    flags
	}{
		{set: Set{VIPs: []netip.Addr{vip4, vip6}}, vips: keys(vip4, vip6)},
		{set: Set{VIPs: []netip.Addr{vip4, vip6, third}}, vips: keys(vip4, vip6, third)},
		{set: Set{VIPs: []netip.Addr{third, other6}}, vips: keys(third, other6)},
		{set: Set{VIPs: []netip.Addr{other6, other6, mapped, third}}, vips: keys(third, other6)},
		{set: Set{}},
		{
			set:    Set{Shared: []Shared{{shared4, 1, 65535}, {shared4, 1, 65535}, {shared6, 50000, 59999}}},
			shared: map[address]ports{shared4.As16(): {1, 65535}, shared6.As16(): {50000, 59999}}, uses: 1,
		},
		{
			set:    Set{Shared: []Shared{{shared4, 50000, 50000}}, Tunnels: []netip.Addr{tunnel6}},
			shared: map[address]ports{shared4.As16(): {50000, 50000}}, tunnels: keys(tunnel6), uses: 1 | 4,
		},
		{
			set:     Set{Answers: []Answers{dns, {backend6, packet.ProtoTCP, 8080}, dns}, Local: []netip.Addr{local4, mapped}},
			answers: map[endpoint]flags{key(backend4, 17, 0, 53): 0, key(backend6, 6, 0x1f, 0x90): 0},
			locals:  keys(local4, third), uses: 2,
		},
		{set: Set{Tunnels: []netip.Addr{tunnel4, tunnel6}, Local: []netip.Addr{local4}}, tunnels: keys(tunnel4, tunnel6), uses: 4},
		{
			set:     Set{VIPs: []netip.Addr{vip6}, Answers: []Answers{dns}, Tunnels: []netip.Addr{tunnel4}},
			vips:    keys(vip6),
			answers: map[endpoint]flags{key(backend4, 17, 0, 53): 0}, tunnels: keys(tunnel4), uses: 2 | 4,
		},
		{},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if err := f.Steer(test.set); err != nil {
				t.Fatal(err)
			}
			same(t, f, steerMapVips, test.vips)
			same(t, f, steerMapLocals, test.locals)
			same(t, f, steerMapTunnels, test.tunnels)
			same(t, f, steerMapShared, test.shared)
			same(t, f, steerMapAnswers, test.answers)
			same(t, f, steerMapUses, map[uint32]flags{0: test.uses})
		})
	}
}

// What is in the old and the new set must not leave its map for a moment, so
// its entry, marked here, has to survive.
func TestSteerKeepsEntries(t *testing.T) {
	f := loaded(t)
	if err := f.Steer(wholeSet); err != nil {
		t.Fatal(err)
	}
	marks := map[string]any{
		steerMapVips: address(vip4.As16()), steerMapLocals: address(local4.As16()), steerMapTunnels: address(tunnel4.As16()),
		steerMapAnswers: newEndpoint(wholeSet.Answers[0]),
	}
	for name, key := range marks {
		if err := f.objects.Maps[name].Update(key, uint32(42), ebpf.UpdateExist); err != nil {
			t.Fatal(err)
		}
	}
	next := Set{
		VIPs: []netip.Addr{other4, vip4}, Answers: wholeSet.Answers[:1],
		Local: []netip.Addr{other4, local4}, Tunnels: []netip.Addr{other4, tunnel4},
	}
	if err := f.Steer(next); err != nil {
		t.Fatal(err)
	}
	for name, key := range marks {
		var value uint32
		if err := f.objects.Maps[name].Lookup(key, &value); err != nil || value != 42 {
			t.Errorf("%s: the entry of what has not changed was written: %d, %v", name, value, err)
		}
	}
}

// many are as many addresses from there on.
func many(from string, n int) []netip.Addr {
	list := make([]netip.Addr, n)
	addr := netip.MustParseAddr(from)
	for i := range list {
		list[i] = addr
		addr = addr.Next()
	}
	return list
}

// full is a set with as much of everything as is allowed, and one more if one
// is asked for.
func full(from string, more int) Set {
	s := Set{VIPs: many(from, MaxVIPs+more), Local: many(from, MaxLocal+more), Tunnels: many(from, MaxTunnels+more)}
	for _, a := range many(from, MaxShared+more) {
		s.Shared = append(s.Shared, Shared{a, 1, 9})
	}
	for _, a := range many(from, MaxAnswers+more) {
		s.Answers = append(s.Answers, Answers{a, packet.ProtoTCP, 80})
	}
	return s
}

func TestSteerRefuses(t *testing.T) {
	f := loaded(t)
	if err := f.Steer(wholeSet); err != nil {
		t.Fatal(err)
	}
	zone, tooMany := netip.MustParseAddr("fe80::1%eth0"), full("2001:db8::", 1)
	for name, set := range map[string]Set{
		"zero VIP":              {VIPs: []netip.Addr{{}}},
		"VIP with a zone":       {VIPs: []netip.Addr{zone}},
		"tunnel with a zone":    {Tunnels: []netip.Addr{zone}},
		"local with a zone":     {Local: []netip.Addr{zone}, Answers: wholeSet.Answers},
		"shared with a zone":    {Shared: []Shared{{zone, 1, 2}}},
		"shared port 0":         {Shared: []Shared{{shared4, 0, 2}}},
		"shared ports reversed": {Shared: []Shared{{shared4, 3, 2}}},
		"two ranges":            {Shared: []Shared{{shared4, 3, 4}, {shared4, 5, 6}}},
		"answers with a zone":   {Answers: []Answers{{zone, packet.ProtoTCP, 80}}},
		"answers of ICMP":       {Answers: []Answers{{backend4, packet.ProtoICMPv4, 80}}},
		"answers of port 0":     {Answers: []Answers{{backend4, packet.ProtoTCP, 0}}},
		"too many VIPs":         {VIPs: tooMany.VIPs},
		"too many shared":       {Shared: tooMany.Shared},
		"too many answers":      {Answers: tooMany.Answers},
		"too many local":        {Local: tooMany.Local, Answers: wholeSet.Answers},
		"too many tunnels":      {Tunnels: tooMany.Tunnels},
	} {
		if err := f.Steer(set); err == nil || !strings.HasPrefix(err.Error(), "steer: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	want, err := wholeSet.contents()
	if err != nil {
		t.Fatal(err)
	}
	same(t, f, steerMapVips, want.vips)
	same(t, f, steerMapShared, want.shared)
	same(t, f, steerMapAnswers, want.answers)
}

// All is exchanged at once: the old is still there while the new is added.
func TestSteerFull(t *testing.T) {
	f := loaded(t)
	for _, from := range []string{"2001:db8::", "2001:db8:1::"} {
		if err := f.Steer(full(from, 0)); err != nil {
			t.Fatalf("as many as allowed: %v", err)
		}
	}
	want, err := (&Set{VIPs: many("2001:db8:1::", MaxVIPs)}).contents()
	if err != nil {
		t.Fatal(err)
	}
	same(t, f, steerMapVips, want.vips)
}

func TestClose(t *testing.T) {
	f := loaded(t)
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Beat(); err == nil {
		t.Error("a heartbeat after Close is no error")
	}
	if err := f.Steer(Set{VIPs: []netip.Addr{other4}}); err == nil {
		t.Error("Steer after Close is no error")
	}
}
