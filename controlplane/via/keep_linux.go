package via

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// verify asks the kernel where marked packets from an address go; without one, or
// if it is not the box's any more, those from wherever.
func (r *routing) verify(f *family, from, to netip.Addr) error {
	options := &netlink.RouteGetOptions{Mark: r.mark}
	if from.IsValid() {
		options.SrcAddr = from.AsSlice()
	}
	found, err := r.handle.RouteGetWithOptions(to.AsSlice(), options)
	switch {
	case from.IsValid() && errors.Is(err, unix.EINVAL):
		return nil // it is no address of the box's: bind(2) will say so
	case err != nil:
		return fmt.Errorf("look up where mark %#x leads: %w", r.mark, err)
	case len(found) == 0 || found[0].LinkIndex != r.index:
		if len(found) > 0 && found[0].Type == unix.RTN_LOCAL {
			return fmt.Errorf("%s is an address of this box; take it away, \"ip addr show to %s\"", to, to)
		}
		return r.diverted(f, from, to)
	}
	return nil
}

// diverted names the rule that packets follow instead, and the fix.
func (r *routing) diverted(f *family, from, to netip.Addr) error {
	of := ""
	if from.IsValid() {
		of = fmt.Sprintf(" from %s", from)
	}
	fix := "see \"ip rule\""
	rules, _ := r.handle.RuleList(f.number) // it only helps to say more
	for i := range rules {
		rule := &rules[i]
		if rule.Priority > int(r.mark-firstMark)+firstPriority || rule.Mark == r.mark {
			break // from here on, ours comes first
		}
		if rule.Table != unix.RT_TABLE_LOCAL && matches(rule, from, to) {
			fix = fmt.Sprintf("the rule %q comes first; give it a priority of more than %d", text(rule), lastPriority)
			break
		}
	}
	return fmt.Errorf("packets with mark %#x%s do not leave by %s; %s", r.mark, of, r.device, fix)
}

// matches tells whether a rule may be for packets from one address to another.
func matches(rule *netlink.Rule, from, to netip.Addr) bool {
	in := func(r *netlink.Rule, a netip.Addr, isSource bool) bool {
		net := r.Dst
		if isSource {
			net = r.Src
		}
		return net == nil || a.IsValid() && net.Contains(a.AsSlice())
	}
	return in(rule, from, true) && in(rule, to, false)
}

// text writes a rule as "ip rule" does.
func text(rule *netlink.Rule) string {
	var b strings.Builder
	from := "all"
	if rule.Src != nil {
		from = strings.TrimSuffix(strings.TrimSuffix(rule.Src.String(), "/32"), "/128")
	}
	fmt.Fprintf(&b, "%d: from %s", rule.Priority, from)
	if rule.Dst != nil {
		fmt.Fprintf(&b, " to %s", strings.TrimSuffix(strings.TrimSuffix(rule.Dst.String(), "/32"), "/128"))
	}
	if rule.Mark != 0 {
		fmt.Fprintf(&b, " fwmark %#x", rule.Mark)
	}
	if rule.Table != 0 {
		fmt.Fprintf(&b, " lookup %d", rule.Table)
	}
	return b.String()
}

// from says why packets from an address of the box's do not get into the device;
// nil if they do. A rule for that address may come before ours. It asks the
// kernel once for each address, and again while there is a problem; keep does the
// rest.
func (r *routing) from(a netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.family(a.Is6())
	if r.tun < 0 || f.absent != nil {
		return nil // who asks is told that
	}
	s := f.sources[a]
	if s == nil {
		s = &source{}
		f.sources[a] = s
	}
	s.used = true
	if s.at.IsZero() || s.problem != nil && time.Since(s.at) >= fresh {
		s.problem, s.at = r.verify(f, a, f.probe), time.Now()
		if s.problem != nil {
			r.keepFamily(f) // if all is lost, it looks at the sources again
		}
	}
	return s.problem
}

// lookup is from for one destination, and asks the kernel in any case.
func (r *routing) lookup(from, to netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.verify(r.family(to.Is6()), from, to)
}

// keep puts right what others have removed of a family: systemd-networkd, for
// one, deletes rules that it does not know when it starts
// (ManageForeignRoutingPolicyRules=). Without its rule a marked packet takes the
// kernel's routes to the VIP, where anybody may answer. It looks at most once in a
// while, and returns what is or was wrong then.
func (r *routing) keep(is6 bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tun < 0 {
		return r.now.Load().why(is6)
	}
	return r.keepFamily(r.family(is6))
}

func (r *routing) keepFamily(f *family) error {
	if time.Since(f.kept) < fresh {
		return f.problem
	}
	absent := f.absent
	f.problem = r.restore(f)
	f.kept = time.Now()
	if f.absent != absent {
		r.publish()
	}
	return f.problem
}

// restore is keep, now. A box may lose IPv6 (disable_ipv6) and get it back: until
// then there is none, and nothing is wrong with the rest.
func (r *routing) restore(f *family) error {
	was := f.absent
	if was == nil {
		was = r.verify(f, netip.Addr{}, f.probe)
	}
	if was == nil {
		r.restoreSources(f)
		return nil
	}
	if link, err := r.handle.LinkByIndex(r.index); err == nil {
		_ = r.handle.LinkSetUp(link)
	}
	err := r.handle.RouteAdd(r.route(f))
	if err != nil && !errors.Is(err, unix.EEXIST) && f.number == unix.AF_INET6 {
		f.absent = noIPv6(err)
		return f.absent
	}
	if f.rule == nil {
		f.rule = ruleOf(f.number, r.mark-firstMark)
	}
	_ = r.handle.RuleAdd(f.rule) // that it is there already is an error, too
	f.absent = nil
	r.restoreSources(f)
	if err := r.verify(f, netip.Addr{}, f.probe); err != nil {
		return fmt.Errorf("the kernel's way into %s is lost, restart weir: %w", r.device, err)
	}
	return fmt.Errorf("the kernel's way into %s was lost: %w", r.device, was)
}

// restoreSources looks again where packets from the addresses in use go.
func (r *routing) restoreSources(f *family) {
	for a, s := range f.sources {
		if !s.used {
			delete(f.sources, a)
			continue
		}
		s.problem, s.at, s.used = r.verify(f, a, f.probe), time.Now(), false
	}
}
