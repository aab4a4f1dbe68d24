// Package doctor finds out why a backend does not serve a VIP, and says what to do
// about it.
//
// The problem it solves: "it does not forward" is nearly always one of a dozen
// faults between weir's interface and the backend's loopback, most of them on a
// machine that weir cannot look into: no VIP, no decapsulation, reverse-path
// filtering, a firewall. But each of them answers a few well-chosen packets in its
// own way. So the doctor asks, first the kernel about its own part, then the
// backend at its own address, then the VIP by the way that traffic takes, and
// listens to everything that comes back, ICMP errors and answers from a wrong
// address included. What comes out is a tree. It stops at the first fault, as
// whatever would come after it has failed as well, and says nothing new.
//
// It changes nothing, on this box or elsewhere.
package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
)

// Timeout is how long a probe waits for an answer, unless New was told something
// else. A healthy backend in the same place answers in a hundredth of it.
const Timeout = time.Second

// Status is how a check has ended.
type Status string

const (
	OK      Status = "ok"
	Fail    Status = "fail"    // nothing works before this is put right
	Warn    Status = "warn"    // worth knowing; traffic may well be fine
	Skipped Status = "skipped" // not made; Text says why
)

// Names of checks.
const (
	Link      = "link"      // the interface is up
	Route     = "route"     // the kernel has one, and it is one that weir can use
	Neighbour = "neighbour" // the MAC address of who frames go to is known
	Ping      = "ping"      // of the backend's own address
	PathMTU   = "path mtu"  // packets as long as weir sends arrive
	Port      = "port"      // TCP to the backend's own address
	VIP       = "vip"       // TCP and ping to a VIP by the way of traffic
	Tunnel    = "tunnel"    // the backend takes the outer header off
	Source    = "source"    // answers come from the VIP
	Filter    = "filter"    // this box takes the answers
	Client    = "client"    // mode nat with client_address: keep
	Way       = "way"       // this box's kernel leads what asks for a VIP to the backend
)

// Modes, as in the configuration.
const (
	DSR  = "dsr"
	IPIP = "ipip"
	NAT  = "nat"
)

// Subject is a backend of a service.
type Subject struct {
	Service string
	Mode    string     // DSR, IPIP or NAT
	Backend netip.Addr // its own address
	Port    uint16     // TCP at its own address: that of its check or its first; 0: none

	// VIPs are what clients ask for, with a TCP port of the service, 0 if it has none.
	VIPs []netip.AddrPort

	Hop        nexthop.Hop
	Interfaces []string // those that weir works
	Way        string   // key for Steering
	MTU        int      // bytes of the longest IP packet that weir sends to it; 0: the link's

	KeepClient bool // client_address: keep

	// Healthy says that its health check passes now. Then a VIP that is silent to
	// TCP and pings is no fault: the service may be one of datagrams.
	Healthy bool
}

// Diagnosis is the result of one check, and of those it consists of.
type Diagnosis struct {
	Check    string      `json:"check"`
	Status   Status      `json:"status"`
	Text     string      `json:"text"`
	Fix      string      `json:"fix,omitempty"` // what to do, shell commands where there are any
	Children []Diagnosis `json:"children,omitempty"`
}

// Steering is what the doctor needs of package via.
type Steering interface {
	health.Steering

	// Filtered says why this box drops answers from a VIP, "" if it does not.
	Filtered(way string, vip netip.Addr) string

	// Leads says from which address and by which device packets for a VIP leave.
	// The error says why they do not, with the fix behind a semicolon; source is not
	// valid if there is no way or no address to begin with.
	Leads(way string, vip netip.Addr) (source netip.Addr, device string, err error)
}

// counting is a Steering that counts what became of packets.
type counting interface{ Stats() via.Stats }

// Doctor examines backends. It keeps nothing between two examinations, so it may
// be used by several goroutines.
type Doctor struct {
	steering Steering
	timeout  time.Duration
}

// New returns a doctor. Without a steering (nil) nothing can be asked of VIPs.
// A timeout that is not positive stands for Timeout.
func New(s Steering, timeout time.Duration) *Doctor {
	if timeout <= 0 {
		timeout = Timeout
	}
	return &Doctor{steering: s, timeout: timeout}
}

// Examine makes all checks of a subject up to the first that fails. It takes as
// long as the backend is silent: a few timeouts at most. It works in the network
// namespace of the calling thread, and needs CAP_NET_RAW.
func (d *Doctor) Examine(ctx context.Context, s Subject) Diagnosis {
	root := Diagnosis{Check: strings.TrimSpace(s.Service + " " + s.Backend.String()), Status: OK}
	e, err := d.begin(s)
	if err != nil {
		root.Status, root.Text = Skipped, err.Error()
		root.Fix = "run weir as root, or with CAP_NET_RAW"
		return root
	}
	defer e.end()
	for _, check := range []func(context.Context) []Diagnosis{
		e.link, e.route, e.neighbour, e.reach, e.clients, e.way, e.vips,
	} {
		if ctx.Err() != nil {
			root.add(Diagnosis{Check: "rest", Status: Skipped, Text: ctx.Err().Error()})
			break
		}
		root.add(check(ctx)...)
		if root.Status == Fail {
			break
		}
	}
	if root.Text == "" {
		root.Text = "nothing is wrong"
	}
	return root
}

// add takes results in. The worst is that of the whole, and the first of the
// worst says why.
func (r *Diagnosis) add(all ...Diagnosis) {
	rank := map[Status]int{OK: 0, Skipped: 1, Warn: 2, Fail: 3}
	for _, d := range all {
		if rank[d.Status] > rank[r.Status] {
			r.Status, r.Text, r.Fix = d.Status, d.Text, d.Fix
		}
		r.Children = append(r.Children, d)
	}
}

// First returns the first check with this status, the innermost that says so;
// ok is false if there is none.
func (r *Diagnosis) First(s Status) (d Diagnosis, ok bool) {
	for i := range r.Children {
		if d, ok := r.Children[i].First(s); ok {
			return d, true
		}
	}
	return *r, r.Status == s && len(r.Children) == 0
}

func ok(check, format string, args ...any) Diagnosis {
	return Diagnosis{Check: check, Status: OK, Text: fmt.Sprintf(format, args...)}
}

func skipped(check, format string, args ...any) Diagnosis {
	return Diagnosis{Check: check, Status: Skipped, Text: fmt.Sprintf(format, args...)}
}

func fail(check, text, fix string) Diagnosis {
	return Diagnosis{Check: check, Status: Fail, Text: text, Fix: fix}
}

func warn(check, text, fix string) Diagnosis {
	return Diagnosis{Check: check, Status: Warn, Text: text, Fix: fix}
}
