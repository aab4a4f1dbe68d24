package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"weir/perf/balancer"
	"weir/perf/loops"
	"weir/perf/peers"
	"weir/perf/sink"
	"weir/perf/testbed"
	"weir/perf/world"
)

// Account says where all frames of a cell have ended. Offered - Refused is what
// the subject's interface was given, and its counters say what became of that;
// Sent is Delivered but for what the driver has dropped.
type Account struct {
	Offered   uint64 `json:"offered"` // by the generator
	Refused   uint64 `json:"refused"` // by the veth between generator and subject
	Delivered uint64 `json:"delivered"`

	// Bytes is those of all frames delivered into the black hole, which cannot look
	// at them, and OfferedBytes those of all offered, without the frame check
	// sequence.
	Bytes        uint64 `json:"bytes,omitempty"`
	OfferedBytes uint64 `json:"offered_bytes,omitempty"`

	// Of the frames that arrived by the wire there should be none of these.
	Bad    uint64 `json:"bad"`              // not for the MAC and IP addresses that the subject sends to, or, where the sink has looked, not as they should be
	Others uint64 `json:"others,omitempty"` // not of the measurement
	Alien  uint64 `json:"alien,omitempty"`  // of the measurement, but not in the tunnel, or of the IP version or protocol, that is the subject's

	Counters
}

// account ends the subject and says what has become of all frames.
func (r *rig) account() (a Account, err error) {
	running := r.running
	r.running = nil
	if a.Counters, err = running.Stop(); err != nil {
		return Account{}, err
	}
	p, err := r.counts()
	a.Offered, a.Delivered = p.offered, p.delivered
	if err != nil || r.send {
		return a, err
	}
	offered, err := r.Source.Offered()
	if err != nil {
		return a, err
	}
	a.OfferedBytes = offered.Bytes
	if r.hole {
		taken, err := r.Hole.Taken()
		if err != nil {
			return a, err
		}
		a.Bytes = taken.Bytes
	}
	reading, err := r.Sink.Read()
	if err != nil {
		return a, err
	}
	a.Bad, a.Others = reading.Bad.Total(), reading.Others
	a.Alien = reading.Good().Packets
	for _, p := range r.protocols() {
		k := r.subject.kind()
		k.Protocol = p
		a.Alien -= reading.Of(k).Packets
	}
	a.Refused, err = r.Refused()
	return a, err
}

// protocols returns what the generator sends.
func (r *rig) protocols() []sink.Protocol {
	switch {
	case r.opens:
		return []sink.Protocol{sink.Opening, sink.Segment}
	case r.tcp:
		return []sink.Protocol{sink.Segment}
	}
	return []sink.Protocol{sink.Datagram}
}

// kind is what the subject makes of the traffic, whatever its protocol.
func (s *Subject) kind() (k sink.Kind) {
	if s.IPv6 {
		k.Family = sink.IPv6
	}
	if s.mode == balancer.IPIP || s.peer == peers.XDPIPIP {
		k.Tunnel = sink.InIPv4
		if s.IPv6 {
			k.Tunnel = sink.InIPv6
		}
	}
	return k
}

// destination is where the subject sends the traffic: back, or to one of the
// backends that take flows, with their address in modes that rewrite it.
func (s *Subject) destination() sink.Destination {
	vip := world.VIP(s.IPv6).Addr()
	d := sink.Destination{MAC: testbed.NearMAC(), MACBits: 48, To: netip.PrefixFrom(vip, vip.BitLen())}
	if s.loop != "" || s.peer == peers.XDPTX {
		return d
	}
	const bits = 2 // that differ between them
	first, mac := world.Backend(0, s.IPv6)
	d.MAC, d.MACBits = mac, 48-bits
	if s.mode == balancer.NAT || s.mode == balancer.Keep || s.peer == peers.NftDNAT {
		d.To = netip.PrefixFrom(first, first.BitLen())
		for last, _ := world.Backend(world.Backends/2-1, s.IPv6); !d.To.Contains(last); {
			d.To = netip.PrefixFrom(first, d.To.Bits()-1)
		}
	}
	return d
}

// longer is by how many bytes a frame is longer that the subject has sent: a
// tunnel's header (RFC 791, section 3.1; RFC 8200, section 3).
func (s *Subject) longer() uint64 {
	return map[sink.Tunnel]uint64{sink.InIPv4: 20, sink.InIPv6: 40}[s.kind().Tunnel]
}

// inTheVeth is how many frames may be in the wire's ring (VETH_RING_SIZE in
// drivers/net/veth.c) and half done when a busy machine seems to have settled.
const inTheVeth = 512

// check returns what is wrong: what arrived is not what the subject is there to
// make, or the account of its frames does not come out even.
func (a *Account) check(c *Cell) error {
	var errs []error
	must := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	must(a.Bad == 0, "%d frames that arrived are not as they should be", a.Bad)
	must(a.Others == 0, "%d frames that arrived are none of the generator's", a.Others)
	_, shape, _ := strings.Cut(c.subject.kind().String(), "/") // without the protocol, which is the run's
	must(a.Alien == 0, "%d frames that arrived are not %s, or of another protocol", a.Alien, shape)
	if c.Scenario == Send {
		return errors.Join(errs...)
	}
	given := a.Offered - a.Refused
	must(a.Refused <= a.Offered && a.Delivered <= given, "%d frames were offered, %d of them refused, and %d arrived", a.Offered, a.Refused, a.Delivered)
	if c.Cores.Sink < 0 && a.Offered > 0 {
		want := a.Delivered * (a.OfferedBytes/a.Offered + c.subject.longer())
		must(a.Bytes == want, "%d frames were delivered that had %d bytes, want %d", a.Delivered, a.Bytes, want)
	}
	if c.subject.peer != "" || c.subject.loop == loops.Testpmd {
		return errors.Join(errs...) // who counts nothing
	}
	taken := a.Received + a.ReceiveDropped
	must(taken <= given && taken+inTheVeth >= given, "%d frames were received or dropped of %d", taken, given)
	must(a.Delivered <= a.Sent, "%d frames arrived of %d sent", a.Delivered, a.Sent)
	if c.subject.loop != "" {
		// GivenUp may have frames that Sent has as well: the driver's.
		must(a.Sent <= a.Received && a.Sent+a.GivenUp >= a.Received,
			"%d frames were sent and %d given up of %d received", a.Sent, a.GivenUp, a.Received)
		return errors.Join(errs...)
	}
	must(a.Received == a.Sent+a.Dropped, "%d frames were sent and %d dropped of %d received", a.Sent, a.Dropped, a.Received)
	must((a.HandedOver > 0) == (c.subject.queues > 1), "%d frames were handed over between %d workers", a.HandedOver, c.subject.queues)
	return errors.Join(errs...)
}
