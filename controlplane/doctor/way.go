package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"weir/controlplane/via"
)

// way looks whether the kernel leads what asks for VIPs to the backend, or whether
// a rule of the box's comes first. Traffic does not depend on it, but checks do, and
// the doctor's own.
func (e *examination) way(context.Context) []Diagnosis {
	s := &e.subject
	if s.Mode == NAT || e.steering == nil {
		return nil
	}
	var all []Diagnosis
	known := make(map[netip.Addr]bool)
	for _, vip := range s.VIPs {
		source, device, err := e.steering.Leads(s.Way, vip.Addr().Unmap())
		switch {
		case !source.IsValid():
			// There is no way: who asks for the VIP says why.
		case err != nil:
			what, fix, _ := strings.Cut(err.Error(), "; ")
			e.astray = append(e.astray, vip.Addr().Unmap())
			all = append(all, warn(Way, fmt.Sprintf("%s cannot be checked on single backends: %s", vip.Addr(), what), fix))
		case !known[source]:
			known[source] = true
			all = append(all, ok(Way, "marked packets from %s leave by %s", source, device))
		}
	}
	return all
}

// stats returns what became of packets so far, if somebody counts it.
func (e *examination) stats() (s via.Stats, counted bool) {
	if c, counts := e.steering.(counting); counts {
		return c.Stats(), true
	}
	return s, false
}

// losses says which packets did not leave since before. Health checks go on
// meanwhile: they may be of others.
func (e *examination) losses(before via.Stats) []Diagnosis {
	now, counted := e.stats()
	if !counted {
		return nil
	}
	var all []Diagnosis
	if n := now.Unfit - before.Unfit; n > 0 {
		all = append(all, warn(Way, fmt.Sprintf("%d packets of checks, of this backend or others, did not fit the way to it while its VIPs were asked for", n),
			"weir show backends: is the mtu of one too small?"))
	}
	if n := now.NotSent - before.NotSent; n > 0 {
		all = append(all, warn(Way, fmt.Sprintf("%d packets of checks, of this backend or others, could not be sent while its VIPs were asked for: %s", n, now.LastError),
			"ip -s link; is an interface down, or its queue full?"))
	}
	return all
}
