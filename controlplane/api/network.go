package api

import (
	"context"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/ipam"
	"weir/controlplane/reconcile"
)

// Announcement is a VIP, or SNAT address, announced on one link or to one peer.
type Announcement struct {
	Address  string    `json:"address"`         // a prefix if more than the address is announced
	Protocol string    `json:"protocol"`        // arp, ndp, bgp; l2 or bgp if State is withheld
	To       string    `json:"to,omitempty"`    // interface or peer
	State    string    `json:"state"`           // announced, probing, standby, conflict, down; withheld: this node cannot serve it
	Owner    string    `json:"owner,omitempty"` // the node or MAC address that has it instead
	Since    time.Time `json:"since,omitzero"`
	Sent     uint64    `json:"sent"`
	Last     time.Time `json:"last,omitzero"` // sent
	Error    string    `json:"error,omitempty"`
}

// withheld is the state of an announcement that no announcer has been given.
const withheld = "withheld"

// Pool is a pool of addresses, and who has them.
type Pool struct {
	Name       string        `json:"name"`
	Announce   []string      `json:"announce"` // l2, bgp
	AutoAssign bool          `json:"auto_assign"`
	IPv4       *PoolCount    `json:"ipv4,omitempty"` // absent if it has none
	IPv6       *PoolCount    `json:"ipv6,omitempty"`
	Held       []PoolAddress `json:"held"`
}

// PoolCount is numbers of addresses, which may be larger than a float64 can tell
// apart.
type PoolCount struct {
	Size *big.Int `json:"size"`
	Used *big.Int `json:"used"`
	Free *big.Int `json:"free"`
}

// PoolAddress is an address in use.
type PoolAddress struct {
	Address  netip.Addr `json:"address"`
	Services []string   `json:"services"`
}

// NewPool makes a Pool of what package ipam says of it, and of how its addresses
// are announced.
func NewPool(u ipam.Usage, by []string, autoAssign bool) Pool {
	p := Pool{Name: u.Pool, Announce: orEmpty(by), AutoAssign: autoAssign, Held: []PoolAddress{}}
	count := func(c ipam.Count) *PoolCount {
		if c.Size.Sign() == 0 && c.Used.Sign() == 0 {
			return nil
		}
		return &PoolCount{c.Size, c.Used, c.Free}
	}
	p.IPv4, p.IPv6 = count(u.IPv4), count(u.IPv6)
	for _, h := range u.Held {
		p.Held = append(p.Held, PoolAddress(h))
	}
	return p
}

// Member is a node of the cluster.
type Member struct {
	Name      string         `json:"name"`
	Address   netip.AddrPort `json:"address,omitzero"`
	Self      bool           `json:"self"`
	Alive     bool           `json:"alive"`
	Since     time.Time      `json:"since,omitzero"` // it is alive, or not
	Announces int            `json:"announces"`      // addresses
	Version   string         `json:"version,omitempty"`
	Error     string         `json:"error,omitempty"` // what is wrong with it, for instance a name that two nodes have
}

// Peer is a BGP session.
type Peer struct {
	Name            string     `json:"name"`
	Address         netip.Addr `json:"address"`
	ASN             uint32     `json:"asn"`
	State           string     `json:"state"`          // idle, active, opensent, openconfirm, established
	Since           time.Time  `json:"since,omitzero"` // it was established, or lost
	Prefixes        int        `json:"prefixes"`       // announced to the peer
	Flaps           uint64     `json:"flaps"`          // how often it was established and then lost
	LastError       string     `json:"last_error,omitempty"`
	GracefulRestart bool       `json:"graceful_restart"`
}

// established is the State of a Peer that takes prefixes.
const established = "established"

// Verdict is what became of a diagnosis.
type Verdict string

// The verdicts.
const (
	DiagnosisOK      Verdict = "ok"
	DiagnosisFail    Verdict = "fail"
	DiagnosisWarn    Verdict = "warn"    // works, but not as it should
	DiagnosisSkipped Verdict = "skipped" // not tried, as it could not tell anything
)

// Diagnosis is what was found out about a subject, and what about the parts that
// it depends on.
type Diagnosis struct {
	Subject  string      `json:"subject"`
	Status   Verdict     `json:"status"`
	Text     string      `json:"text,omitempty"` // what was found
	Fix      string      `json:"fix,omitempty"`  // what to do about it
	Children []Diagnosis `json:"children,omitempty"`
}

// Faults is how many things are wrong: failed diagnoses of which no part has
// failed. One of a whole and of its part are the same fault.
func (d *Diagnosis) Faults() int {
	n := 0
	for i := range d.Children {
		n += d.Children[i].Faults()
	}
	if n == 0 && d.Status == DiagnosisFail {
		return 1
	}
	return n
}

// announcements lists what is announced, and then what is not because this node
// could not serve it.
func announcements(all []announce.Status, view *reconcile.View) []Announcement {
	out := make([]Announcement, 0, len(all))
	for _, s := range all {
		out = append(out, Announcement{
			Address: prefixText(s.Address), Protocol: s.Protocol, To: s.To, State: string(s.State), Owner: s.Owner,
			Since: s.Since, Sent: s.Sent, Last: s.Last, Error: s.Err,
		})
	}
	for _, a := range view.Addresses {
		for _, by := range a.By {
			if reason := a.Withheld(by); reason != "" {
				out = append(out, Announcement{Address: a.Address.String(), Protocol: string(by), State: withheld, Error: reason})
			}
		}
	}
	return out
}

// prefixText is a prefix, or an address if it is no more than that.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// doctor looks into one service, or, if that is empty, into all.
func doctor(ctx context.Context, a Appliance, service string) (Diagnosis, error) {
	if service != "" {
		var names []string
		for _, s := range a.View().Services {
			names = append(names, s.Name)
		}
		if !slices.Contains(names, service) {
			return Diagnosis{}, fmt.Errorf("no such service: %q; there are %s", service, strings.Join(names, ", "))
		}
	}
	d, err := a.Doctor(ctx, service)
	if err != nil {
		return Diagnosis{}, fmt.Errorf("diagnose: %w", err)
	}
	return d, nil
}
