package config

import (
	"net/netip"
	"time"
)

// Cluster is how nodes find each other. Nodes know each other by Config.Node.
type Cluster struct {
	Bind      netip.AddrPort // where gossip is listened for, by UDP and TCP; without an address: on all; the port is never 0
	Advertise netip.AddrPort // where the others reach this node; not valid: it finds out
	Peers     []string       // HOST:PORT, at least one; this node may be among them
	Key       []byte         // encrypts the gossip; 16, 24 or 32 bytes
}

// BGP is this node as a BGP speaker, and its peers.
type BGP struct {
	ASN           uint32
	RouterID      netip.Addr     // IPv4; not valid: the box's first global IPv4 address
	Listen        netip.AddrPort // not valid: weir only connects
	NextHop       netip.Addr     // of IPv4 routes; not valid: the local address of the session
	NextHop6      netip.Addr     // the same of IPv6
	ShutdownDelay time.Duration  // how long routes stay with GRACEFUL_SHUTDOWN (RFC 8326) before weir ends; 0..5m, default 5s
	Peers         []BGPPeer      // at least one
}

// BGPPeer is a router that weir has a session with.
type BGPPeer struct {
	Name          string     // unique; default: Address
	Address       netip.Addr // unique
	ASN           uint32
	LocalASN      uint32        // what weir says it is to this peer; 0: BGP.ASN
	Port          uint16        // default 179
	Source        netip.Addr    // of the session; not valid: the kernel's choice
	Multihop      int           // how many hops away an external peer may be; 0: directly connected; 0..255
	Password      string        // of TCP MD5, RFC 2385, at most 80 bytes; empty: none
	HoldTime      time.Duration // whole seconds, at least 3 s; default 90s
	KeepaliveTime time.Duration // whole seconds, less than HoldTime; default a third of it
	ConnectRetry  time.Duration // default 5s
	Families      []Family      // never empty; default: that of Address
	NextHop       netip.Addr    // of IPv4 routes; not valid: BGP.NextHop
	NextHop6      netip.Addr    // the same of IPv6
	Communities   []string      // besides those of a pool; as PoolBGP.Communities
	LocalPref     *uint32       // before that of a pool; internal peers only; nil: that of the pool
	MED           *uint32       // before that of a pool; nil: that of the pool

	GracefulRestart bool          // RFC 4724
	RestartTime     time.Duration // whole seconds, at most 4095; default 120s

	Pools []string // names; only addresses of these are announced to it. Empty: all addresses, also those in no pool
}

// Local returns the AS number that weir has towards p.
func (b *BGP) Local(p *BGPPeer) uint32 {
	if p.LocalASN != 0 {
		return p.LocalASN
	}
	return b.ASN
}
