package bgp

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// gracefulShutdown is the community GRACEFUL_SHUTDOWN (RFC 8326 section 5).
const gracefulShutdown = 65535 << 16

// wellKnown returns the community that has a name in IANA's registry "BGP
// Well-known Communities". Not in it: those that only a router may set.
func wellKnown(name string) (uint32, bool) {
	switch name {
	case "graceful-shutdown":
		return gracefulShutdown, true
	case "accept-own":
		return 0xffff0001, true
	case "blackhole":
		return 0xffff029a, true // RFC 7999
	case "no-export":
		return 0xffffff01, true // RFC 1997
	case "no-advertise":
		return 0xffffff02, true
	case "no-export-subconfed", "local-as":
		return 0xffffff03, true
	case "no-peer":
		return 0xffffff04, true // RFC 3765
	}
	return 0, false
}

// large is a large community (RFC 8092).
type large struct{ global, data1, data2 uint32 }

func (l large) compare(other large) int {
	return cmp.Or(cmp.Compare(l.global, other.global), cmp.Compare(l.data1, other.data1), cmp.Compare(l.data2, other.data2))
}

// communities are the standard and the large ones of a route, sorted, each once.
type communities struct {
	standard []uint32
	large    []large
}

// parseCommunities reads "65000:100", "65000:1:2" and names such as "no-export".
func parseCommunities(texts []string) (communities, error) {
	var c communities
	for _, text := range texts {
		if v, ok := wellKnown(text); ok {
			c.standard = append(c.standard, v)
			continue
		}
		parts := strings.Split(text, ":")
		bits := 16
		if len(parts) == 3 {
			bits = 32
		}
		var numbers []uint32
		for _, part := range parts {
			n, err := strconv.ParseUint(part, 10, bits)
			if err != nil || len(parts) < 2 || len(parts) > 3 {
				return communities{}, fmt.Errorf(`community %q: it is as "65000:100", "65000:1:2", or a name as "no-export"`, text)
			}
			numbers = append(numbers, uint32(n))
		}
		if len(parts) == 2 {
			c.standard = append(c.standard, numbers[0]<<16|numbers[1])
		} else {
			c.large = append(c.large, large{numbers[0], numbers[1], numbers[2]})
		}
	}
	return join(c), nil
}

// join returns all communities of several sets.
func join(sets ...communities) communities {
	standard, larges := make(map[uint32]bool), make(map[large]bool)
	for _, s := range sets {
		for _, v := range s.standard {
			standard[v] = true
		}
		for _, v := range s.large {
			larges[v] = true
		}
	}
	return communities{slices.Sorted(maps.Keys(standard)), slices.SortedFunc(maps.Keys(larges), large.compare)}
}

func (c communities) equal(other communities) bool {
	return slices.Equal(c.standard, other.standard) && slices.Equal(c.large, other.large)
}
