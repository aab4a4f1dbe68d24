package via

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
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

	// firstPriority is that of the rule: before those of VRFs (1000), of VPNs that
	// catch all that is not marked by them (wg-quick, Tailscale: 5210 and on), and
	// of course of main (32766).
	firstPriority = 901

	// deviceName is completed by the kernel.
	deviceName = "weir%d"

	// deviceMTU is the least that IPv6 allows (RFC 8200 section 5), so that a
	// packet fits every path, with room for the outer header on nearly all.
	deviceMTU = 1280

	// deviceQueue is how many packets wait in the device while Run does not come
	// to its turn; the default, 500, is a thirtieth of a second of many checks.
	deviceQueue = 8192

	allBits = 0xffffffff
)

// probes are addresses for documentation: what a rule has to lead to the device.
var probes = map[int]netip.Addr{
	unix.AF_INET:  netip.MustParseAddr("192.0.2.1"),
	unix.AF_INET6: netip.MustParseAddr("2001:db8::1"),
}

// routing is the TUN device and what leads packets into it. All of it but the
// rules goes away with the descriptor, so with the process; a rule that is left
// behind leads into an empty table, and so on to the next rule, until the next
// start removes it.
type routing struct {
	handle *netlink.Handle // the caller's
	tun    int             // descriptor, non-blocking
	device string
	index  int
	mark   uint32 // and table
	rules  []*netlink.Rule
	no6    error // why there is no IPv6; nil if there is

	mu      sync.Mutex // one keep at a time
	kept    time.Time  // when keep has looked
	problem error      // what it found
}

func openRouting(handle *netlink.Handle) (*routing, error) {
	r := &routing{handle: handle, tun: -1}
	err := r.openDevice()
	if err == nil {
		err = r.configure()
	}
	if err == nil {
		err = r.choose()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *routing) openDevice() error {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("open %s (modprobe tun; in a container, pass the device in): %w", path, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("open %s (run as root; in a container or unit, allow the device): %w", path, err)
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	r.tun = fd
	request, err := unix.NewIfreq(deviceName)
	if err != nil {
		return fmt.Errorf("name device: %w", err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("create TUN device (run as root or with CAP_NET_ADMIN): %w", err)
	}
	r.device = request.Name()
	return nil
}

// configure keeps the kernel from using the device for anything of its own: no
// link-local address, no router solicitations, no multicast reports.
func (r *routing) configure() error {
	link, err := r.handle.LinkByName(r.device)
	if err != nil {
		return fmt.Errorf("look up %s: %w", r.device, err)
	}
	r.index = link.Attrs().Index
	r.quiet()
	for _, set := range []func() error{
		func() error { return r.handle.LinkSetMTU(link, deviceMTU) },
		func() error { return r.handle.LinkSetTxQLen(link, deviceQueue) },
		func() error { return r.handle.LinkSetMulticastOff(link) },
		func() error { return r.handle.LinkSetUp(link) },
	} {
		if err := set(); err != nil {
			return fmt.Errorf("set up %s: %w", r.device, err)
		}
	}
	return nil
}

// quiet is best effort: /proc/sys may be read-only, and what the kernel then
// sends by itself is dropped as stray.
func (r *routing) quiet() {
	for key, value := range map[string]string{
		"ipv6/conf/" + r.device + "/addr_gen_mode":        "1", // none
		"ipv6/conf/" + r.device + "/accept_ra":            "0",
		"ipv6/conf/" + r.device + "/router_solicitations": "0",
	} {
		_ = os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o644)
	}
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
	r.mark, r.no6 = firstMark+i, nil
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := r.leadFamily(family, i)
		if err != nil && family == unix.AF_INET6 && !errors.Is(err, errTaken) {
			r.no6 = err
			continue
		}
		if err != nil {
			return errors.Join(err, r.unlead())
		}
	}
	return nil
}

func (r *routing) leadFamily(family int, i uint32) error {
	if err := r.free(family, i); err != nil {
		return err
	}
	err := r.handle.RouteAdd(r.route(family))
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("routing table %d: %w", r.mark, errTaken)
	case err != nil:
		return fmt.Errorf("add default route by %s to table %d: %w", r.device, r.mark, err)
	}
	rule := ruleOf(family, i)
	if err := r.handle.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule for mark %#x: %w", r.mark, err)
	}
	r.rules = append(r.rules, rule)
	return r.verify(rule)
}

// verify asks the kernel where marked packets of a rule's family go.
func (r *routing) verify(rule *netlink.Rule) error {
	found, err := r.handle.RouteGetWithOptions(probes[rule.Family].AsSlice(), &netlink.RouteGetOptions{Mark: r.mark})
	if err != nil {
		return fmt.Errorf("look up where mark %#x leads: %w", r.mark, err)
	}
	if len(found) == 0 || found[0].LinkIndex != r.index {
		return fmt.Errorf("packets with mark %#x do not leave by %s: a rule of less than %d comes first, see \"ip rule\"",
			r.mark, r.device, rule.Priority)
	}
	return nil
}

// keep puts right what others have removed: systemd-networkd, for one, deletes
// rules that it does not know when it starts (ManageForeignRoutingPolicyRules=).
// Without its rule a marked packet takes the kernel's routes to the VIP, where
// anybody may answer. It looks at most once in a while, and returns what is or was
// wrong then.
func (r *routing) keep() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.kept) < fresh {
		return r.problem
	}
	r.problem = nil
	for _, rule := range r.rules {
		err := r.verify(rule)
		if err == nil {
			continue
		}
		r.problem = fmt.Errorf("the kernel's way into %s was lost: %w", r.device, err)
		if link, e := r.handle.LinkByIndex(r.index); e == nil {
			_ = r.handle.LinkSetUp(link)
		}
		_ = r.handle.RouteAdd(r.route(rule.Family)) // that it is there already is an error, too
		_ = r.handle.RuleAdd(rule)
		if err := r.verify(rule); err != nil {
			r.problem = fmt.Errorf("the kernel's way into %s is lost, restart weir: %w", r.device, err)
		}
	}
	r.kept = time.Now()
	return r.problem
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
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := r.handle.RuleList(family)
		if err != nil {
			continue
		}
		for k := range rules {
			i := uint32(rules[k].Table) - firstMark
			if i >= candidates || i == mine || !isOurs(&rules[k], i) {
				continue
			}
			routes, err := r.handle.RouteListFiltered(family, &netlink.Route{Table: rules[k].Table}, netlink.RT_FILTER_TABLE)
			if err == nil && len(routes) == 0 {
				_ = r.handle.RuleDel(ruleOf(family, i)) // it harms nobody
			}
		}
	}
}

func (r *routing) route(family int) *netlink.Route {
	route := &netlink.Route{LinkIndex: r.index, Table: int(r.mark), Scope: netlink.SCOPE_LINK, Family: family}
	bits := probes[family].BitLen()
	route.Dst = &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
	if family == unix.AF_INET6 {
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
	for _, rule := range r.rules {
		if err := r.handle.RuleDel(rule); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete rule for mark %#x: %w", rule.Mark, err))
		}
		_ = r.handle.RouteDel(r.route(rule.Family)) // goes with the device at the latest
	}
	r.rules = nil
	return errors.Join(errs...)
}

// Close removes rules, routes and device.
func (r *routing) Close() error {
	r.mu.Lock() // nothing is put back from here on
	defer r.mu.Unlock()
	err := r.unlead()
	if r.tun >= 0 {
		err = errors.Join(err, unix.Close(r.tun))
		r.tun = -1
	}
	return err
}
