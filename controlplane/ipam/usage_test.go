package ipam

import (
	"fmt"
	"math/big"
	"net/netip"
	"testing"
)

func TestUsage(t *testing.T) {
	big64 := new(big.Int).Lsh(big.NewInt(1), 64)
	all := new(big.Int).Lsh(big.NewInt(1), 128)
	count := func(size *big.Int, used int64) Count {
		return Count{size, big.NewInt(used), new(big.Int).Sub(size, big.NewInt(used))}
	}
	n := big.NewInt
	pools := []Pool{
		public("203.0.113.0/28", "203.0.113.64-203.0.113.80", "203.0.113.4/31", "2001:db8:1::/64"),
		{Name: "buggy", AvoidBuggy: true, Ranges: ranges("10.0.0.0/16", "10.1.0.255-10.1.2.0", "10.2.0.1-10.2.0.254")}, {Name: "none"},
	}
	requests := []Request{
		{Service: "b", Share: "k", Addresses: []netip.Addr{addr("203.0.113.64"), addr("198.51.100.1"), addr("203.0.113.64")}, Ports: tcp(80)},
		{Service: "a", Share: "k", Pool: "public", Families: []Family{IPv4, IPv6}, Ports: tcp(81)},
		{Service: "odd", Addresses: []netip.Addr{addr("10.0.7.255"), addr("10.0.7.254")}},
	}
	r, err := Allocate(pools, requests, []Allocation{has("a", "2001:db8:1::a", 1)}, noon())
	if err != nil {
		t.Fatal(err)
	}
	want := []Usage{
		{"buggy", Count{n(65536 - 512 + 256 + 2 - 4 + 254), n(2), n(65536 - 512 + 256 + 2 - 4 + 254 - 1)}, count(n(0), 0), []Held{{addr("10.0.7.254"), []string{"odd"}}, {addr("10.0.7.255"), []string{"odd"}}}},
		{"none", count(n(0), 0), count(n(0), 0), nil},
		{"public", count(n(33), 1), count(big64, 1), []Held{{addr("203.0.113.64"), []string{"a", "b"}}, {addr("2001:db8:1::a"), []string{"a"}}}},
	}
	if fmt.Sprint(r.Usage) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", r.Usage, want)
	}
	r, err = Allocate([]Pool{{Name: "all", AutoAssign: true, Ranges: ranges("::/1", "8000::/1", "0.0.0.0/0")}}, []Request{{Service: "web", Families: []Family{IPv6, IPv4}}}, nil, noon())
	if err != nil || r.Usage[0].IPv6.Size.Cmp(all) != 0 || r.Usage[0].IPv4.Free.Int64() != 1<<32-1 {
		t.Errorf("of everything: %v, error %v", r.Usage, err)
	}
}

// Nobody has gone through all of a /64 when the second service is given its own.
func TestHugePoolsAreNotSearched(t *testing.T) {
	pools := []Pool{public("2001:db8::/64", "2001:db8:0:2::-2001:db8:0:2::3")}
	want := []Request{{Service: "web", Share: "k", Ports: tcp(80), Families: []Family{IPv6}}}
	first, err := Allocate(pools, want, nil, noon())
	if err != nil {
		t.Fatal(err)
	}
	p := first.Addresses["web"][0]
	for i := range 3000 { // all with a port in common
		want = append(want, Request{Service: fmt.Sprintf("x%04d", i), Share: "k", Ports: tcp(80), Families: []Family{IPv6}})
	}
	r, err := Allocate(pools, want, nil, noon())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if p = p.Next(); r.Addresses[fmt.Sprintf("x%04d", i)][0] != p {
			t.Fatalf("x%04d has %v, want %s", i, r.Addresses[fmt.Sprintf("x%04d", i)], p)
		}
	}
}
