package steer

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// How much of each a Filter can hold.
const (
	MaxVIPs    = 65536
	MaxShared  = 4096
	MaxAnswers = 65536
	MaxLocal   = 16384
	MaxTunnels = 16384
)

// Set is what a Filter takes frames by. The zero Set takes none. Order does not
// matter, and neither does what is in it twice.
type Set struct {
	// VIPs are addresses that are weir's alone, SNAT addresses among them.
	VIPs []netip.Addr

	// Shared are the box's own addresses of which some ports are weir's.
	Shared []Shared

	// Answers are where those packets come from that backends send to
	// clients, and that come by here.
	Answers []Answers

	// Local are the box's own addresses. What backends send to them is no
	// answer to a client. They count only with Answers.
	Local []netip.Addr

	// Tunnels are the far ends of weir's tunnels: ICMP messages that a packet
	// to one of them was too big are weir's, whoever they are addressed to.
	Tunnels []netip.Addr
}

// Shared is an address of the box, of which weir has the TCP and UDP ports from
// Lo to Hi, and the ICMP errors about what was sent from them. Everything else
// is the kernel's, ARP, NDP and ping included.
type Shared struct {
	Addr   netip.Addr
	Lo, Hi uint16
}

// Answers are the TCP or UDP packets from a backend's port. The ICMP errors
// about packets to it are weir's as well, unless they are addressed to the box.
type Answers struct {
	Addr  netip.Addr
	Proto uint8 // as in an IP header
	Port  uint16
}

// contents is a Set in the form of the BPF maps.
type contents struct {
	vips, locals, tunnels map[address]flags
	shared                map[address]ports
	answers               map[endpoint]flags
}

func (s *Set) contents() (*contents, error) {
	c := &contents{shared: make(map[address]ports), answers: make(map[endpoint]flags)}
	var errs [3]error
	c.vips, errs[0] = addresses("VIPs", s.VIPs, MaxVIPs)
	c.tunnels, errs[1] = addresses("tunnels", s.Tunnels, MaxTunnels)
	if len(s.Answers) > 0 {
		c.locals, errs[2] = addresses("local addresses", s.Local, MaxLocal)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	for _, sh := range s.Shared {
		if err := check(sh.Addr); err != nil {
			return nil, fmt.Errorf("shared address: %w", err)
		}
		key, value := address(sh.Addr.As16()), ports{sh.Lo, sh.Hi}
		if other, ok := c.shared[key]; ok && other != value || sh.Lo == 0 || sh.Lo > sh.Hi {
			return nil, fmt.Errorf("shared address %s: ports %d-%d are not one range from 1 to 65535", sh.Addr, sh.Lo, sh.Hi)
		}
		c.shared[key] = value
	}
	for _, a := range s.Answers {
		if err := check(a.Addr); err != nil {
			return nil, fmt.Errorf("answers: %w", err)
		}
		if a.Proto != unix.IPPROTO_TCP && a.Proto != unix.IPPROTO_UDP || a.Port == 0 {
			return nil, fmt.Errorf("answers of %s: protocol %d port %d is not a port of TCP or UDP", a.Addr, a.Proto, a.Port)
		}
		c.answers[newEndpoint(a)] = 0
	}
	if len(c.shared) > MaxShared {
		return nil, fmt.Errorf("%d shared addresses are more than %d", len(c.shared), MaxShared)
	}
	if len(c.answers) > MaxAnswers {
		return nil, fmt.Errorf("answers of %d addresses and ports are more than %d", len(c.answers), MaxAnswers)
	}
	return c, nil
}

func addresses(what string, list []netip.Addr, most int) (map[address]flags, error) {
	set := make(map[address]flags, len(list))
	for _, a := range list {
		if err := check(a); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		set[a.As16()] = 0
	}
	if len(set) > most {
		return nil, fmt.Errorf("%s: %d are more than %d", what, len(set), most)
	}
	return set, nil
}

func check(a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" {
		return fmt.Errorf("%q is not an address without a zone", a)
	}
	return nil
}

// Steer makes set the whole of what is weir's. What is new is added before
// anything old is removed, and what is in the old and the new set is weir's all
// the time. An error before anything is changed says what is wrong with set or
// that it has too much of something; after any other, what is weir's is between
// the old set and the new one, and Steer may be called again.
func (f *Filter) Steer(set Set) error {
	want, err := set.contents()
	if err != nil {
		return fmt.Errorf("steer: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// A local address is known before the answers that it is an exception to,
	// and until they are gone.
	for _, change := range []func() error{
		func() error { return f.locals.add(want.locals) },
		func() error { return f.answers.add(want.answers) },
		func() error { return f.shared.add(want.shared) },
		func() error { return f.tunnels.add(want.tunnels) },
		func() error { return f.vips.add(want.vips) },
		f.putUses,
		func() error { return f.vips.keep(want.vips) },
		func() error { return f.tunnels.keep(want.tunnels) },
		func() error { return f.shared.keep(want.shared) },
		func() error { return f.answers.keep(want.answers) },
		func() error { return f.locals.keep(want.locals) },
		f.putUses,
	} {
		if err := change(); err != nil {
			return fmt.Errorf("steer: %w", err)
		}
	}
	return nil
}

// putUses tells the programs which maps have anything in them.
func (f *Filter) putUses() error {
	var uses flags
	if len(f.shared.has) > 0 {
		uses |= useShared
	}
	if len(f.answers.has) > 0 {
		uses |= useAnswers
	}
	if len(f.tunnels.has) > 0 {
		uses |= useTunnels
	}
	if err := f.objects.Maps[steerMapUses].Put(uint32(0), uses); err != nil {
		return fmt.Errorf("say what is in use: %w", err)
	}
	return nil
}
