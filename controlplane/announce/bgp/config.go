package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Defaults of what a Peer leaves zero.
const (
	DefaultHoldTime     = 90 * time.Second // RFC 4271 section 10
	DefaultConnectRetry = 5 * time.Second
	DefaultRestartTime  = 120 * time.Second
	DefaultPort         = 179
)

const (
	minHoldTime    = 3 * time.Second // RFC 4271 section 4.2
	maxHoldTime    = 65535 * time.Second
	maxRestartTime = 4095 * time.Second // 12 bits, RFC 4724 section 3
	maxPassword    = 80                 // TCP_MD5SIG_MAXKEYLEN of Linux, in bytes
)

// Config is everything that is configured about BGP.
type Config struct {
	ASN      uint32
	RouterID netip.Addr // an IPv4 address

	// Listen is where to accept sessions; invalid: nowhere, all sessions are
	// opened from here. A port below 1024 needs CAP_NET_BIND_SERVICE.
	Listen netip.AddrPort

	// NextHop and NextHop6 are the next hops of IPv4 and IPv6 prefixes. Invalid:
	// the session's local address, where that is of the family.
	NextHop, NextHop6 netip.Addr

	// ShutdownDelay is how long prefixes stay announced with the community
	// GRACEFUL_SHUTDOWN before they are withdrawn (RFC 8326).
	ShutdownDelay time.Duration

	Peers []Peer
	Pools map[string]Pool
}

// Peer is a router to announce to.
type Peer struct {
	Name    string // unique; default: the address
	Address netip.Addr
	ASN     uint32

	// LocalASN is what this node says it is to the peer, if not Config.ASN.
	LocalASN uint32

	Port   uint16     // default 179
	Source netip.Addr // invalid: the kernel chooses

	// Multihop is the TTL of packets to an eBGP peer; 0: the peer is on the link,
	// TTL 1. An iBGP peer may be anywhere.
	Multihop int

	Password string // TCP MD5 (RFC 2385); empty: none

	HoldTime      time.Duration // 3 s at least; the smaller of both sides' counts
	KeepaliveTime time.Duration // default: a third of HoldTime
	ConnectRetry  time.Duration // within how long a session is tried again
	RestartTime   time.Duration // see GracefulRestart; 4095 s at most

	// IPv4 and IPv6 are what is announced to the peer. Neither: the family of
	// its address.
	IPv4, IPv6 bool

	NextHop, NextHop6 netip.Addr // before those of Config

	// Communities are added to those of the pool.
	Communities []string

	LocalPref *uint32 // before that of the pool; only for iBGP
	MED       *uint32 // before that of the pool

	// GracefulRestart asks the peer to keep what it was told for RestartTime when
	// the session is lost without a farewell (RFC 4724). See the package comment.
	GracefulRestart bool

	// Pools are those announced to the peer. Empty: all, and addresses of none.
	Pools []string
}

// Pool is how addresses of a pool are announced.
type Pool struct {
	Communities []string // as "65000:100", "65000:1:2" (large), "no-export"
	LocalPref   *uint32  // only for iBGP
	MED         *uint32

	// Aggregation and Aggregation6 are the lengths of the prefixes announced; 0:
	// the address itself.
	Aggregation, Aggregation6 int

	Peers  []string // names of the peers announced to; empty: all
	Nobody bool     // is announced to no peer at all
}

// prepared is a Config that has been checked and completed.
type prepared struct {
	Config
	communities map[string]communities // of pools
	peers       []preparedPeer         // in the order of names
}

type preparedPeer struct {
	Peer
	communities communities
	ibgp        bool
}

// session is the part of a Peer that cannot change while its session is up.
func (p *preparedPeer) session() Peer {
	return Peer{
		Name: p.Name, Address: p.Address, ASN: p.ASN, LocalASN: p.LocalASN, Port: p.Port, Source: p.Source,
		Multihop: p.Multihop, Password: p.Password, HoldTime: p.HoldTime, KeepaliveTime: p.KeepaliveTime,
		ConnectRetry: p.ConnectRetry, RestartTime: p.RestartTime, IPv4: p.IPv4, IPv6: p.IPv6,
		GracefulRestart: p.GracefulRestart,
	}
}

// sameSession reports whether two peers need the same session.
func sameSession(a, b *preparedPeer) bool {
	x, y := a.session(), b.session()
	return x.Name == y.Name && x.Address == y.Address && x.ASN == y.ASN && x.LocalASN == y.LocalASN && x.Port == y.Port &&
		x.Source == y.Source && x.Multihop == y.Multihop && x.Password == y.Password && x.HoldTime == y.HoldTime &&
		x.KeepaliveTime == y.KeepaliveTime && x.ConnectRetry == y.ConnectRetry && x.RestartTime == y.RestartTime &&
		x.IPv4 == y.IPv4 && x.IPv6 == y.IPv6 && x.GracefulRestart == y.GracefulRestart
}

// prepare checks a configuration and fills in defaults. Its error joins all
// mistakes.
func prepare(c Config) (*prepared, error) {
	p := &prepared{Config: c, communities: make(map[string]communities)}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.ASN == 0 {
		wrong("asn is missing")
	}
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		wrong("router id %s is no IPv4 address of this node", c.RouterID)
	}
	if c.Listen.IsValid() && c.Listen.Port() == 0 {
		wrong("listen address %s has no port", c.Listen)
	}
	if c.ShutdownDelay < 0 {
		wrong("shutdown delay %v is negative", c.ShutdownDelay)
	}
	checkNextHops(c.NextHop, c.NextHop6, wrong)

	names, addresses := make(map[string]bool), make(map[netip.Addr]bool)
	for _, peer := range c.Peers {
		q := complete(peer, c)
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("peer %s: %w", q.Name, fmt.Errorf(format, args...)))
		}
		if names[q.Name] {
			wrong("there are two of that name")
		}
		if addresses[q.Address] {
			wrong("there are two with address %s", q.Address)
		}
		names[q.Name], addresses[q.Address] = true, true
		q.check(wrong)
		var err error
		if q.communities, err = parseCommunities(q.Communities); err != nil {
			wrong("%w", err)
		}
		p.peers = append(p.peers, q)
	}
	slices.SortFunc(p.peers, func(a, b preparedPeer) int { return cmp.Compare(a.Name, b.Name) })

	p.Pools = make(map[string]Pool, len(c.Pools))
	for name, pool := range c.Pools {
		pool.Aggregation = cmp.Or(pool.Aggregation, 32)
		pool.Aggregation6 = cmp.Or(pool.Aggregation6, 128)
		if pool.Aggregation < 0 || pool.Aggregation > 32 || pool.Aggregation6 < 0 || pool.Aggregation6 > 128 {
			wrong("pool %s: aggregation to /%d and /%d: it is 1 to 32 and 1 to 128", name, pool.Aggregation, pool.Aggregation6)
		}
		for _, peer := range pool.Peers {
			if !names[peer] {
				wrong("pool %s: there is no peer %s", name, peer)
			}
		}
		var err error
		if p.communities[name], err = parseCommunities(pool.Communities); err != nil {
			wrong("pool %s: %w", name, err)
		}
		p.Pools[name] = pool
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("configure bgp: %w", errors.Join(errs...))
	}
	return p, nil
}

func complete(p Peer, c Config) preparedPeer {
	p.Address = p.Address.Unmap()
	p.Name = cmp.Or(p.Name, p.Address.String())
	p.LocalASN = cmp.Or(p.LocalASN, c.ASN)
	p.Port = cmp.Or(p.Port, DefaultPort)
	p.HoldTime = cmp.Or(p.HoldTime, DefaultHoldTime)
	p.KeepaliveTime = cmp.Or(p.KeepaliveTime, max(p.HoldTime/3, time.Second))
	p.ConnectRetry = cmp.Or(p.ConnectRetry, DefaultConnectRetry)
	p.RestartTime = cmp.Or(p.RestartTime, DefaultRestartTime)
	if !p.IPv4 && !p.IPv6 {
		p.IPv4, p.IPv6 = p.Address.Is4(), p.Address.Is6()
	}
	if !p.NextHop.IsValid() {
		p.NextHop = c.NextHop
	}
	if !p.NextHop6.IsValid() {
		p.NextHop6 = c.NextHop6
	}
	return preparedPeer{Peer: p, ibgp: p.LocalASN == p.ASN}
}

func (p *preparedPeer) check(wrong func(string, ...any)) {
	if !p.Address.IsValid() || p.Address.IsUnspecified() || p.Address.IsMulticast() {
		wrong("address %s is none of a router", p.Address)
	}
	if p.ASN == 0 {
		wrong("asn is missing")
	}
	if p.Source.IsValid() && p.Source.Is4() != p.Address.Is4() {
		wrong("source %s and address %s are of two families", p.Source, p.Address)
	}
	if p.Multihop < 0 || p.Multihop > 255 {
		wrong("multihop %d: it is a TTL, 0 to 255", p.Multihop)
	}
	if len(p.Password) > maxPassword {
		wrong("password has more than %d bytes", maxPassword)
	}
	if p.HoldTime < minHoldTime || p.HoldTime > maxHoldTime {
		wrong("hold time %v: it is %v to %v", p.HoldTime, minHoldTime, maxHoldTime)
	}
	if p.KeepaliveTime < time.Second || p.KeepaliveTime >= p.HoldTime {
		wrong("keepalive time %v: it is 1s at least and less than the hold time %v", p.KeepaliveTime, p.HoldTime)
	}
	if p.ConnectRetry < time.Second {
		wrong("connect retry time %v: it is 1s at least", p.ConnectRetry)
	}
	if p.RestartTime < 0 || p.RestartTime > maxRestartTime {
		wrong("restart time %v: it is %v at most", p.RestartTime, maxRestartTime)
	}
	checkNextHops(p.Peer.NextHop, p.Peer.NextHop6, wrong)
	// A session's local address is only a next hop for its own family.
	if p.IPv6 && p.Address.Is4() && !p.NextHop6.IsValid() {
		wrong("IPv6 prefixes over an IPv4 session need next_hop6, an IPv6 address of this node on the router's link (RFC 2545)")
	}
	if p.IPv6 && p.Address.IsLinkLocalUnicast() && p.Address.Is6() && !p.NextHop6.IsValid() {
		wrong("IPv6 prefixes over a session between link-local addresses need next_hop6")
	}
	if p.IPv4 && p.Address.Is6() && !p.NextHop.IsValid() {
		wrong("IPv4 prefixes over an IPv6 session need next_hop, an IPv4 address of this node on the router's link")
	}
}

func checkNextHops(four, six netip.Addr, wrong func(string, ...any)) {
	if four.IsValid() && (!four.Is4() || four.IsUnspecified()) {
		wrong("next hop %s is no IPv4 address", four)
	}
	if six.IsValid() && (!six.Is6() || six.Is4In6() || six.IsUnspecified()) {
		wrong("next hop %s is no IPv6 address", six)
	}
}
