package reserve

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// maxList is as long as the list can be, in bytes: every other port.
const maxList = 65536 / 2 * len("65535,")

// portSet is a set of ports, one bit for each.
type portSet [65536 / 64]uint64

func (s *portSet) add(r Range) {
	for port := int(r.Lo); port <= int(r.Hi); port++ {
		s[port/64] |= 1 << (port % 64)
	}
}

func (s *portSet) has(port uint16) bool { return s[port/64]>>(port%64)&1 != 0 }

// with returns the ports of both.
func (s *portSet) with(more *portSet) portSet {
	both := *s
	for i := range both {
		both[i] |= more[i]
	}
	return both
}

// without returns the ports of s that are not in other.
func (s *portSet) without(other *portSet) portSet {
	rest := *s
	for i := range rest {
		rest[i] &^= other[i]
	}
	return rest
}

// String returns the ports as the kernel writes them, such as 22,50000-59999
// (proc_do_large_bitmap in kernel/sysctl.c).
func (s *portSet) String() string {
	var b strings.Builder
	for port := s.next(0, 0); port < 65536; {
		end := s.next(port, ^uint64(0)) // the first that is not in it
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(Range{uint16(port), uint16(end - 1)}.String())
		port = s.next(end, 0)
	}
	return b.String()
}

// next returns the first port from port on that is in the set, or, with all
// bits flipped, that is not; 65536 if there is none.
func (s *portSet) next(port int, flip uint64) int {
	for port < 65536 {
		word := (s[port/64] ^ flip) >> (port % 64)
		if word != 0 {
			return port + bits.TrailingZeros64(word)
		}
		port += 64 - port%64
	}
	return port
}

// parsePorts reads what the kernel, or String, wrote.
func parsePorts(text string) (portSet, error) {
	var s portSet
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		first, err := strconv.ParseUint(lo, 10, 16)
		if err != nil {
			return portSet{}, fmt.Errorf("ports %q: %w", part, err)
		}
		last, err := strconv.ParseUint(hi, 10, 16)
		if err != nil {
			return portSet{}, fmt.Errorf("ports %q: %w", part, err)
		}
		if first > last {
			return portSet{}, fmt.Errorf("ports %q: the first is greater than the last", part)
		}
		s.add(Range{uint16(first), uint16(last)})
	}
	return s, nil
}
