package decap

import "fmt"

// Counters says what became of each frame that arrived on the NIC since New,
// in frames. Every frame is counted once.
type Counters struct {
	Stripped Stripped // outer header taken off, handed to the kernel
	Passed   Passed   // handed to the kernel unchanged
	Dropped  Dropped
}

// Stripped counts by kind.
type Stripped struct {
	IPv4InIPv4 uint64
	IPv6InIPv6 uint64
	IPv4InIPv6 uint64
	IPv6InIPv4 uint64
}

// Passed counts by the first reason found against stripping, in the order of
// the checks.
type Passed struct {
	NotTunnel        uint64 // not IP, or IP with something else in it: all other traffic
	OuterMalformed   uint64 // version, header length or total length is wrong, or the frame is shorter
	OuterFragment    uint64 // an IPv4 fragment; an IPv6 one is NotTunnel
	OuterDestination uint64 // not an address of this host
	OuterSource      uint64 // not in Options.Sources
	InnerMalformed   uint64 // as OuterMalformed, or longer than the outer header says
	InnerDestination uint64 // not a VIP
}

// Dropped counts by reason.
type Dropped struct {
	ECN    uint64 // congestion was marked outside on a packet that cannot carry the mark inside (RFC 6040, section 4.2)
	NoRoom uint64 // the kernel would not shorten the frame; not known to happen
}

// Counters reads the counters of all CPUs. The program keeps counting
// meanwhile, so the figures are not of one instant.
func (d *Decap) Counters() (Counters, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return Counters{}, ErrClosed
	}
	var c Counters
	for i, field := range map[decapCounter]*uint64{
		decapCounterSTRIPPED_4IN4:            &c.Stripped.IPv4InIPv4,
		decapCounterSTRIPPED_6IN6:            &c.Stripped.IPv6InIPv6,
		decapCounterSTRIPPED_4IN6:            &c.Stripped.IPv4InIPv6,
		decapCounterSTRIPPED_6IN4:            &c.Stripped.IPv6InIPv4,
		decapCounterPASSED_NOT_TUNNEL:        &c.Passed.NotTunnel,
		decapCounterPASSED_OUTER_MALFORMED:   &c.Passed.OuterMalformed,
		decapCounterPASSED_OUTER_FRAGMENT:    &c.Passed.OuterFragment,
		decapCounterPASSED_OUTER_DESTINATION: &c.Passed.OuterDestination,
		decapCounterPASSED_OUTER_SOURCE:      &c.Passed.OuterSource,
		decapCounterPASSED_INNER_MALFORMED:   &c.Passed.InnerMalformed,
		decapCounterPASSED_INNER_DESTINATION: &c.Passed.InnerDestination,
		decapCounterDROPPED_ECN:              &c.Dropped.ECN,
		decapCounterDROPPED_NO_ROOM:          &c.Dropped.NoRoom,
	} {
		var perCPU []uint64
		if err := d.objects.Counters.Lookup(uint32(i), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("decap: read counter %d: %w", i, err)
		}
		for _, n := range perCPU {
			*field += n
		}
	}
	return c, nil
}
