package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestExhaustionNamesTheMost(t *testing.T) {
	var requests []Request
	for i := range 20 {
		requests = append(requests, four(fmt.Sprintf("s%02d", i)))
	}
	requests = append(requests, Request{Service: "big", Addresses: []netip.Addr{addr("203.0.113.1"), addr("203.0.113.2"), addr("203.0.113.3")}})
	_, err := Allocate([]Pool{public("203.0.113.0/28")}, requests, nil, noon())
	const want = "no IPv4 address is left for services s05, s06, s09, s12, s14, s15, s17: pool public has 16 addresses, all in use: big 3, s00 1, s01 1, s02 1, s03 1, s04 1, s07 1, s08 1 and 6 more; " +
		"add addresses, name another pool, or take a service out"
	if err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
	var e *Exhausted
	if !errors.As(err, &e) || e.Family != IPv4 || !slices.Equal(e.Pools, []string{"public"}) || len(e.Services) != 7 {
		t.Errorf("%+v", e)
	}
}

func TestTolerate(t *testing.T) {
	a, b := &Lost{Allocation: has("a", "203.0.113.1", 1)}, &Lost{Allocation: has("b", "203.0.113.2", 1), By: "x"}
	other := &Exhausted{Family: IPv4, Pools: []string{"p"}, Services: []string{"s"}}
	for _, tc := range []struct {
		err  error
		lost []*Lost
		rest error
	}{
		{nil, nil, nil},
		{errors.Join(a, b), []*Lost{a, b}, nil},
		{a, []*Lost{a}, nil},
		{errors.Join(a, other), []*Lost{a}, other},
		{other, nil, other},
	} {
		lost, rest := Tolerate(tc.err)
		if !slices.Equal(lost, tc.lost) || (rest == nil) != (tc.rest == nil) || tc.rest != nil && !errors.Is(rest, tc.rest) {
			t.Errorf("of %v: %v, %v", tc.err, lost, rest)
		}
		var l *Lost
		if errors.As(rest, &l) {
			t.Errorf("the rest of %v has %v", tc.err, l)
		}
	}
}
