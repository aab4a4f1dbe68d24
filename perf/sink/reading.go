package sink

import (
	"fmt"

	"weir/perf/measure"
)

// Kind is what a frame is.
type Kind struct {
	Tunnel   Tunnel
	Family   Family // of the inner packet if there is a tunnel
	Protocol Protocol
}

// Tunnel is what a packet is inside (RFC 2003, RFC 2473, RFC 4213).
type Tunnel uint8

// The tunnels.
const (
	NoTunnel Tunnel = iota
	InIPv4
	InIPv6
	tunnels
)

// Family is a version of IP.
type Family uint8

// The families.
const (
	IPv4 Family = iota
	IPv6
	families
)

// Protocol tells packets of one family apart.
type Protocol uint8

// The protocols.
const (
	Datagram Protocol = iota // UDP
	Opening                  // TCP connection request
	Segment                  // all other TCP
	protocols
)

const kinds = int(tunnels) * int(families) * int(protocols)

// index is the program's key of a kind.
func (k Kind) index() int {
	return (int(k.Tunnel)*int(families)+int(k.Family))*int(protocols) + int(k.Protocol)
}

func kindOf(index int) Kind {
	p, f := int(protocols), int(families)
	return Kind{Tunnel(index / p / f), Family(index / p % f), Protocol(index % p)}
}

// String returns something like "UDP/IPv4" or "SYN/IPv6 in IPv4".
func (k Kind) String() string {
	s := [...]string{"UDP", "SYN", "TCP"}[k.Protocol] + [...]string{"/IPv4", "/IPv6"}[k.Family]
	return s + [...]string{"", " in IPv4", " in IPv6"}[k.Tunnel]
}

// Tally is some frames.
type Tally struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // of whole frames, without the frame check sequence
}

// Reading is all that a sink has seen so far. It can be compared.
type Reading struct {
	arrived [kinds]Tally

	Bad       Bad
	Others    uint64            // frames that were not the sink's to take
	Latency   measure.Histogram // with Options.Latency
	Reordered uint64            // with Options.Latency: frames with a lower number than one that had arrived before
}

// Bad is frames that the sink has taken for wrong, each for the first reason
// that there is. They are in no tally.
type Bad struct {
	Length     uint64 `json:"length"`      // with Options.Verify: of an IP packet, UDP datagram or TCP header
	IPChecksum uint64 `json:"ip_checksum"` // with Options.Verify: of an IPv4 header, outer or inner
	Checksum   uint64 `json:"checksum"`    // with Options.Verify: of UDP or TCP; none counts as wrong
	Stamp      uint64 `json:"stamp"`       // with Options.Latency: there is none
	Merged     uint64 `json:"merged"`      // with Options.Verify: by GRO, which leaves no checksums to check
	Address    uint64 `json:"address"`     // with Options.Destination: it goes to another one
}

// Total returns how many frames are bad.
func (b Bad) Total() uint64 {
	return b.Length + b.IPChecksum + b.Checksum + b.Stamp + b.Merged + b.Address
}

// Of returns the frames of a kind.
func (r *Reading) Of(k Kind) Tally { return r.arrived[k.index()] }

// Good returns the frames of all kinds.
func (r *Reading) Good() (sum Tally) {
	for _, t := range r.arrived {
		sum.Packets += t.Packets
		sum.Bytes += t.Bytes
	}
	return sum
}

// Counts returns the frames of all tunnels and families.
func (r *Reading) Counts() (c Counts) {
	for i, t := range r.arrived {
		switch kindOf(i).Protocol {
		case Datagram:
			c.Datagrams += t.Packets
		case Opening:
			c.Openings += t.Packets
		case Segment:
			c.Segments += t.Packets
		}
	}
	return c
}

// Read returns what the sink has seen.
func (s *Sink) Read() (r Reading, err error) {
	if err := s.readArrived(&r); err != nil {
		return Reading{}, err
	}
	for outcome, n := range map[sinkOutcome]*uint64{
		sinkOutcomeOUTCOME_OTHER:           &r.Others,
		sinkOutcomeOUTCOME_BAD_LENGTH:      &r.Bad.Length,
		sinkOutcomeOUTCOME_BAD_IP_CHECKSUM: &r.Bad.IPChecksum,
		sinkOutcomeOUTCOME_BAD_CHECKSUM:    &r.Bad.Checksum,
		sinkOutcomeOUTCOME_BAD_STAMP:       &r.Bad.Stamp,
		sinkOutcomeOUTCOME_MERGED:          &r.Bad.Merged,
		sinkOutcomeOUTCOME_BAD_ADDRESS:     &r.Bad.Address,
	} {
		err := perCPU(s, sinkMapOutcomes, uint32(outcome), func(m *uint64) { *n += *m })
		if err != nil {
			return Reading{}, err
		}
	}
	err = perCPU(s, sinkMapStamps, 0, func(c *stamps) {
		r.Reordered += c.Reordered
		r.Latency.Max = max(r.Latency.Max, c.Greatest)
		for bucket, n := range c.Buckets {
			r.Latency.Buckets[bucket] += n
		}
	})
	return r, err
}

func (s *Sink) readArrived(r *Reading) error {
	for kind := range r.arrived {
		err := perCPU(s, sinkMapArrived, uint32(kind), func(t *Tally) {
			r.arrived[kind].Packets += t.Packets
			r.arrived[kind].Bytes += t.Bytes
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// perCPU calls f with each CPU's value of a key.
func perCPU[V any](s *Sink, name string, key uint32, f func(*V)) error {
	var values []V
	if err := s.objects.Maps[name].Lookup(key, &values); err != nil {
		return fmt.Errorf("read sink's counters: %w", err)
	}
	for i := range values {
		f(&values[i])
	}
	return nil
}
