package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// tape turns the fuzzer's bytes into choices; at its end all are 0.
type tape []byte

func (t *tape) next(n int) int {
	if len(*t) == 0 {
		return 0
	}
	b := (*t)[0]
	*t = (*t)[1:]
	return int(b) % n
}

// address is one of few, of all sizes of distance, and sometimes none.
func (t *tape) address() netip.Addr {
	x := byte(t.next(8))
	switch t.next(8) {
	case 0, 1, 2:
		return netip.AddrFrom4([4]byte{10, 0, byte(t.next(2)), x*32 + byte(t.next(32))})
	case 3, 4, 5:
		return netip.AddrFrom16([16]byte{0x20, 1, 7: x, 15: byte(t.next(256))})
	case 6:
		return []netip.Addr{{}, netip.IPv6Unspecified(), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), addr("255.255.255.255"), addr("0.0.0.0"), addr("::ffff:10.0.0.1"), addr("fe80::1%eth0"), addr("8000::")}[x]
	}
	return netip.AddrFrom16([16]byte{x << 5, 1})
}

func FuzzAllocate(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0, 2, 6, 1, 6, 2, 6, 1, 6, 2}) // all of IPv6
	f.Add([]byte("two pools that overlap, and services that list what others have"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := tape(data)
		var pools []Pool
		for i := range in.next(5) {
			p := Pool{Name: string(rune('a' + i)), AutoAssign: in.next(3) > 0, AvoidBuggy: in.next(2) == 1, Priority: in.next(3)}
			if in.next(4) == 0 {
				p.Selector = map[string]string{"tier": "gold"}
			}
			for range in.next(5) {
				p.Ranges = append(p.Ranges, Range{in.address(), in.address()})
			}
			pools = append(pools, p)
		}
		var requests []Request
		var existing []Allocation
		for i := range in.next(24) {
			r := Request{Service: fmt.Sprintf("s%d", i), Ports: []Port{{6, uint16(1 + in.next(9)), uint16(5 + in.next(5))}}}
			r.Families = [][]Family{{4}, {6}, {4, 6}, {}}[in.next(4)]
			r.Share, r.Pool = []string{"", "", "k"}[in.next(3)], []string{"", "a", "b", "c", "x"}[in.next(5)]
			if in.next(2) == 0 {
				r.Labels = map[string]string{"tier": "gold"}
			}
			for range in.next(7) - 4 {
				if a := in.address(); plain(a) {
					r.Addresses = append(r.Addresses, a)
				}
			}
			for range in.next(4) {
				existing = append(existing, Allocation{r.Service, string(rune('a' + in.next(5))), in.address(), noon().Add(-time.Duration(in.next(9)) * time.Second)})
			}
			requests = append(requests, r)
		}
		got, err := Allocate(pools, requests, existing, noon())
		sound := slices.Clone(pools) // without what Allocate has left out
		for i := range sound {
			sound[i].Ranges = slices.DeleteFunc(slices.Clone(sound[i].Ranges), func(r Range) bool {
				return r.From.BitLen() != r.To.BitLen() || r.To.Less(r.From) || !plain(r.From) || !plain(r.To)
			})
		}
		check(t, sound, requests, existing, got, err)
		slices.Reverse(pools)
		slices.Reverse(requests)
		slices.Reverse(existing)
		again, err2 := Allocate(pools, requests, existing, noon())
		if fmt.Sprint(again.Addresses, again.Moved, again.Usage) != fmt.Sprint(got.Addresses, got.Moved, got.Usage) || (err == nil) != (err2 == nil) {
			t.Fatalf("in another order it is %v, %v, not %v, %v", again, err2, got, err)
		}
		later, _ := Allocate(pools, requests, got.Allocations, noon().Add(time.Hour))
		if !slices.Equal(later.Allocations, got.Allocations) {
			t.Fatalf("later it is %v, not %v", later.Allocations, got.Allocations)
		}
	})
}
