package ipam

import (
	"cmp"
	"slices"
)

// Merge makes one set of what two nodes have given. Of two allocations for one
// service and family the one since earlier stays; of those since the same moment,
// the lower address. Each node may merge in any order, and as often as it likes:
// all come to the same. That two services may have one address then, Allocate
// resolves, in favour of the one that has it for longer.
//
// The result is ordered by service, IPv4 first, with all times in UTC.
func Merge(a, b []Allocation) []Allocation {
	all := slices.Concat(a, b)
	for i := range all {
		all[i].Since = all[i].Since.UTC().Round(0)
	}
	slices.SortFunc(all, func(a, b Allocation) int {
		return cmp.Or(byServiceAndFamily(a, b), a.Since.Compare(b.Since), a.Address.Compare(b.Address), cmp.Compare(a.Pool, b.Pool))
	})
	return slices.CompactFunc(all, func(a, b Allocation) bool { return byServiceAndFamily(a, b) == 0 })
}
