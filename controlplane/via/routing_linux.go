package via

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What this package takes of the box's numbers. There are candidates, and the
// first is taken whose table and mark nobody else has; a second weir on the box
// gets the second.
const (
	// firstMark is the mark of sockets, compared whole (mask 0xffffffff), and the
	// number of the routing table: "we" above a small number. The 16 low bits keep
	// clear of what others look for in marks of all kinds: 0x4000 and 0x8000 of
	// kube-proxy, 0x0f00 of Cilium, 0x3f00 of mwan3.
	firstMark  = 0x77650001
	candidates = 8

	// firstPriority is that of the rule: right behind the local table (0), and
	// before all that people and programs use. A box with several uplinks has
	// rules for its source addresses, often of 100 and on; VRFs have 1000, VPNs
	// that catch all that is not marked by them 5210 and on (Tailscale).
	firstPriority = 1
	lastPriority  = firstPriority + candidates - 1

	allBits = 0xffffffff
)

// routing is the TUN device and what leads packets into it. All of it but the
// rules goes away with the descriptor, so with the process; a rule that is left
// behind leads into an empty table, and so on to the next rule, until the next
// start removes it.
type routing struct {
	handle *netlink.Handle       // the caller's
	now    atomic.Pointer[state] // what checks have to know; never nil once open

	// Run alone reads and sets it, and who comes before or after Run: the
	// descriptor, non-blocking; -1 without a device.
	tun int

	mu       sync.Mutex // guards all below; one change at a time
	device   string
	index    int
	mark     uint32 // and table
	families [2]*family
}

// state is never written once published.
type state struct {
	device string
	mark   uint32
	why4   error // why packets of the family cannot go this way; nil if they can
	why6   error
}

func (s *state) why(is6 bool) error {
	if is6 {
		return s.why6
	}
	return s.why4
}

// family is the rule and route of one version of IP.
type family struct {
	number int           // unix.AF_INET or AF_INET6
	probe  netip.Addr    // for documentation: what a rule has to lead to the device
	rule   *netlink.Rule // nil before the first attempt to add it
	absent error         // this box has no such family now; nil if it has

	kept    time.Time // when it was looked at
	problem error     // what was found then

	sources map[netip.Addr]*source // that packets come from
}

// source is what is known of packets from one of the box's addresses: a rule may
// be for them alone.
type source struct {
	problem error     // why they do not get into the device
	at      time.Time // when that was found
	used    bool      // since then
}

func newRouting(handle *netlink.Handle) *routing {
	return &routing{handle: handle, tun: -1, families: [2]*family{
		{number: unix.AF_INET, probe: netip.MustParseAddr("192.0.2.1"), sources: make(map[netip.Addr]*source)},
		{number: unix.AF_INET6, probe: netip.MustParseAddr("2001:db8::1"), sources: make(map[netip.Addr]*source)},
	}}
}

// open makes all of it. After an error, nothing is left.
func (r *routing) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.openDevice()
	if err == nil {
		err = r.configure()
	}
	if err == nil {
		err = r.choose()
	}
	if err != nil {
		err = errors.Join(err, r.shut())
		why := fmt.Errorf("there is no device for it: %w", err)
		r.now.Store(&state{device: r.device, why4: why, why6: why})
		return err
	}
	r.publish()
	return nil
}

// lose gives up a device that does not work any more.
func (r *routing) lose(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Store(&state{device: r.device, why4: why, why6: why})
	_ = r.shut() // most of it is gone
}

// publish tells checks what has changed. It is called with mu held.
func (r *routing) publish() {
	r.now.Store(&state{device: r.device, mark: r.mark, why4: r.families[0].absent, why6: r.families[1].absent})
}

func (r *routing) family(is6 bool) *family {
	if is6 {
		return r.families[1]
	}
	return r.families[0]
}

// choose finds a mark that is free and leads it into the device.
func (r *routing) choose() error {
	var errs []error
	for i := range uint32(candidates) {
		err := r.lead(i)
		if err == nil {
			r.sweep(i)
			return nil
		}
		errs = append(errs, err)
		if !errors.Is(err, errTaken) {
			break
		}
	}
	return errors.Join(errs...)
}

var errTaken = errors.New("in use by somebody else")

// lead makes routes and rules of candidate i. The route comes first: to add it
// fails if another weir has one there, and a rule that is found without a route
// belongs to nobody who is alive.
func (r *routing) lead(i uint32) error {
	r.mark = firstMark + i
	for _, f := range r.families {
		f.rule, f.absent, f.problem, f.kept = nil, nil, nil, time.Time{}
		clear(f.sources)
	}
	for _, f := range r.families {
		err := r.leadFamily(f)
		if err != nil && f.number == unix.AF_INET6 && !errors.Is(err, errTaken) {
			f.absent = noIPv6(err)
			continue
		}
		if err != nil {
			return errors.Join(err, r.unlead())
		}
	}
	return nil
}

func noIPv6(err error) error { return fmt.Errorf("no IPv6 on this box: %w", err) }

func (r *routing) leadFamily(f *family) error {
	i := r.mark - firstMark
	if err := r.free(f.number, i); err != nil {
		return err
	}
	err := r.handle.RouteAdd(r.route(f))
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("routing table %d: %w", r.mark, errTaken)
	case err != nil:
		return fmt.Errorf("add default route by %s to table %d: %w", r.device, r.mark, err)
	}
	f.rule = ruleOf(f.number, i)
	if err := r.handle.RuleAdd(f.rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule for mark %#x: %w", r.mark, err)
	}
	return r.verify(f, netip.Addr{}, f.probe)
}

// free says whether a candidate's numbers are unused, but for a rule of its own
// that has been left behind.
func (r *routing) free(family int, i uint32) error {
	routes, err := r.handle.RouteListFiltered(family, &netlink.Route{Table: int(r.mark)}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routing table %d: %w", r.mark, err)
	}
	if len(routes) > 0 {
		return fmt.Errorf("routing table %d: %w", r.mark, errTaken)
	}
	rules, err := r.handle.RuleList(family)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	for k := range rules {
		rule := &rules[k]
		uses := rule.Table == int(r.mark) || rule.Mark == r.mark
		if uses && !isOurs(rule, i) {
			return fmt.Errorf("mark and table %#x, by the rule of priority %d: %w", r.mark, rule.Priority, errTaken)
		}
	}
	return nil
}

// sweep removes rules that killed processes have left with other candidates: they
// lead to an empty table.
func (r *routing) sweep(mine uint32) {
	for _, f := range r.families {
		rules, err := r.handle.RuleList(f.number)
		if err != nil {
			continue
		}
		for k := range rules {
			i := uint32(rules[k].Table) - firstMark
			if i >= candidates || i == mine || !isOurs(&rules[k], i) {
				continue
			}
			routes, err := r.handle.RouteListFiltered(f.number, &netlink.Route{Table: rules[k].Table}, netlink.RT_FILTER_TABLE)
			if err == nil && len(routes) == 0 {
				_ = r.handle.RuleDel(ruleOf(f.number, i)) // it harms nobody
			}
		}
	}
}

func (r *routing) route(f *family) *netlink.Route {
	route := &netlink.Route{LinkIndex: r.index, Table: int(r.mark), Scope: netlink.SCOPE_LINK, Family: f.number}
	bits := f.probe.BitLen()
	route.Dst = &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
	if f.number == unix.AF_INET6 {
		route.Scope = netlink.SCOPE_UNIVERSE
	}
	return route
}

func ruleOf(family int, i uint32) *netlink.Rule {
	mask := uint32(allBits)
	rule := netlink.NewRule()
	rule.Family, rule.Priority = family, firstPriority+int(i)
	rule.Mark, rule.Mask, rule.Table = firstMark+i, &mask, int(firstMark+i)
	return rule
}

func isOurs(rule *netlink.Rule, i uint32) bool {
	want := ruleOf(rule.Family, i)
	return rule.Priority == want.Priority && rule.Mark == want.Mark && rule.Table == want.Table &&
		(rule.Mask == nil || *rule.Mask == allBits) && rule.Src == nil && rule.Dst == nil &&
		rule.IifName == "" && rule.OifName == "" && !rule.Invert
}

// unlead takes routes and rules away again.
func (r *routing) unlead() error {
	var errs []error
	for _, f := range r.families {
		if f.rule == nil {
			continue
		}
		if err := r.handle.RuleDel(f.rule); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete rule for mark %#x: %w", f.rule.Mark, err))
		}
		_ = r.handle.RouteDel(r.route(f)) // goes with the device at the latest
		f.rule = nil
	}
	return errors.Join(errs...)
}

// Close removes rules, routes and device.
func (r *routing) Close() error {
	r.mu.Lock() // nothing is put back from here on
	defer r.mu.Unlock()
	return r.shut()
}

func (r *routing) shut() error {
	err := r.unlead()
	if r.tun >= 0 {
		err = errors.Join(err, unix.Close(r.tun))
		r.tun = -1
	}
	return err
}
