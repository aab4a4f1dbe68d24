package config

import (
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Service is a set of VIPs and ports, and the backends behind them.
type Service struct {
	Name      string       // unique; [a-z0-9-], at most 63 bytes
	Addresses []netip.Addr // the VIPs; no duplicates, no zones, never IPv4-mapped; of one that is Allocated none until WithAddresses
	Ports     []Port       // no two overlap
	Mode      Mode         // default ModeDSR
	TableSize int          // entries of the Maglev table, a prime; default 65537
	Health    *Health      // nil: backends are not checked
	Backends  []Backend    // no two have the same address

	// What follows up to Share says how addresses are got from a pool, by a service
	// that lists none.
	Pool     string            // empty: from any that has AutoAssign and selects the service
	Families []Family          // of which it gets one address each; empty if Addresses are those of the file
	Labels   map[string]string // what a Pool.Selector looks at
	Share    string            // services with the same one can get the same address; empty: with none

	Announce    []Announce // of those of its Addresses that are in no pool; default AnnounceL2
	MinBackends int        // a VIP is not announced on account of s while fewer of those that can serve it are usable; default 1; 0: always

	ClientAddress ClientAddress // what backends see; default ClientSNAT; means something in ModeNAT only

	// With AffinitySource, how many leading bits of a client's address count.
	Affinity        Affinity // default AffinityFlow
	AffinityPrefix  int      // of IPv4, 1..32; default 32
	AffinityPrefix6 int      // of IPv6, 1..128; default 128

	Ping   Ping   // default PingAlways; the same for all services that share a VIP
	Reject Reject // default RejectDrop; the same for all services that share a VIP

	// SlowStart is how long a backend that becomes usable takes to get all of its
	// weight. 0: none at all; else 1 s to 1 h.
	SlowStart time.Duration

	Limits Limits
	ACL    ACL
}

// Allocated says whether the addresses of s come from a pool instead of being
// listed in the file.
func (s *Service) Allocated() bool { return len(s.Families) > 0 }

// Checked says whether the health of b, a backend of s, is checked.
func (s *Service) Checked(b *Backend) bool {
	return s.Health != nil && (s.Health.ICMP != nil || b.CheckPort != 0)
}

// WithAddresses returns a copy of c in which the services that are Allocated have
// these addresses, by the name of the service. CheckAddresses says whether they
// fit.
func (c *Config) WithAddresses(by map[string][]netip.Addr) *Config {
	with := *c
	with.Services = slices.Clone(c.Services)
	for i := range with.Services {
		if s := &with.Services[i]; s.Allocated() {
			s.Addresses = slices.Clone(by[s.Name])
		}
	}
	return &with
}

// Mode says how a frame is sent to a backend.
type Mode string

// The forwarding modes.
const (
	ModeDSR  Mode = "dsr"  // new destination MAC; the backend holds the VIP
	ModeIPIP Mode = "ipip" // inside an IP tunnel, RFC 2003 and RFC 2473
	ModeNAT  Mode = "nat"  // new addresses and ports; answers come back through weir
)

// ClientAddress says what a backend sees as the source of a packet in ModeNAT.
type ClientAddress string

// What a backend can see.
const (
	ClientSNAT ClientAddress = "snat" // a SNAT address and port; answers come to weir by themselves
	ClientKeep ClientAddress = "keep" // the client's own; the backend has to route its answers through weir
)

// Affinity says which packets must reach the same backend.
type Affinity string

// The affinities.
const (
	AffinityFlow   Affinity = "flow"   // those of one 5-tuple
	AffinitySource Affinity = "source" // those of one client address, or of one prefix of them
)

// Ping says when weir answers an ICMP echo request to a VIP.
type Ping string

// The answers to a ping.
const (
	PingAlways  Ping = "always"
	PingHealthy Ping = "healthy" // only while a service with this VIP has a usable backend
	PingNever   Ping = "never"
)

// Reject is the answer to a packet to a VIP, but to a port of it that no
// service has.
type Reject string

// The answers to a packet that no service is for.
const (
	RejectDrop Reject = "drop" // none
	RejectICMP Reject = "icmp" // port unreachable, RFC 792 and RFC 4443 section 3.1
	RejectRST  Reject = "rst"  // a TCP reset, RFC 9293 section 3.5.2; to what is not TCP as RejectICMP
)

// Limits bounds what a service takes in, per second; 0 is no limit.
type Limits struct {
	NewFlows  int // 0..1e9
	Packets   int // 0..1e9
	PerSource SourceLimits
}

// SourceLimits bounds what a service takes in from one prefix of client
// addresses, per second; 0 is no limit.
type SourceLimits struct {
	Prefix   int // leading bits of an IPv4 address that count, 1..32; default 32
	Prefix6  int // the same of IPv6, 1..128; default 64
	NewFlows int // 0..1e9
	Packets  int // 0..1e9
}

// ACL says which clients a service takes packets from. The longest prefix that
// contains the client's address decides. If none does, the client is denied if
// Allow has any prefix, and allowed if it has none.
type ACL struct {
	Allow, Deny []netip.Prefix // masked; none is there twice
}

// Proto is an IP protocol number as assigned by IANA.
type Proto uint8

// The protocols a service can have.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// String returns the protocol's name as the configuration has it.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

// Port is a protocol and a range of its ports.
type Port struct {
	Proto  Proto
	Lo, Hi uint16 // both included, 1 <= Lo <= Hi
}

// All says whether p is every port of its protocol ("tcp/*").
func (p Port) All() bool { return p.Lo == 1 && p.Hi == 65535 }

// String returns p as the configuration has it.
func (p Port) String() string {
	switch {
	case p.All():
		return p.Proto.String() + "/*"
	case p.Lo == p.Hi:
		return p.Proto.String() + "/" + strconv.Itoa(int(p.Lo))
	}
	return p.Proto.String() + "/" + strconv.Itoa(int(p.Lo)) + "-" + strconv.Itoa(int(p.Hi))
}

// Backend is a server behind a service.
type Backend struct {
	Address netip.Addr
	Weight  uint32 // share of new flows, relative to the others; 0: none; default 100
	State   State  // default Active
	VLAN    uint16 // 802.1Q tag of frames to it, 1..4094; 0: that of the route's interface
	Port    uint16 // that packets to it get in ModeNAT; 0: the port of the VIP
	MTU     int    // of the path to it, in bytes of IP packet; 0: to be learned

	// CheckPort is where its health checks go: the port of the check if that has
	// one, else Port, else the one that the check has by default. 0: the check has
	// no port, or there is none; see Service.Checked.
	CheckPort uint16
}

// State is what the administrator wants of a backend; health is separate.
type State string

// The admin states.
const (
	Active   State = "active"
	Draining State = "draining" // keeps its flows, gets no new ones
	Disabled State = "disabled" // gets nothing
)
