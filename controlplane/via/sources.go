package via

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/controlplane/health"
)

// fresh is for how long a verdict on the way back is believed: it is asked for with
// each check that gets no answer.
const fresh = time.Second

// groups are the notifications after which addresses are read anew.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)

// sources knows the box's own addresses, and whether it takes answers to them.
type sources struct {
	handle *netlink.Handle

	mu        sync.Mutex
	changes   int // netlink socket that has something to read if addresses differ; -1 after Close
	known     bool
	addresses []address             // if known
	chosen    map[choice]netip.Addr // of these
	verdicts  map[path]verdict
}

// address is one of the box's that can be asked from.
type address struct {
	addr      netip.Addr
	index     int
	iface     string
	parent    string // of a VLAN interface: the NIC that it is on
	loopback  bool
	temporary bool // RFC 8981, or an IPv4 secondary address
}

type choice struct {
	iface string
	to    netip.Addr
}

type path struct{ source, vip netip.Addr }

type verdict struct {
	problem string
	at      time.Time
}

func newSources(handle *netlink.Handle) (*sources, error) {
	s := &sources{handle: handle, chosen: make(map[choice]netip.Addr), verdicts: make(map[path]verdict)}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	s.changes = fd
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		s.Close()
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	return s, nil
}

func (s *sources) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes >= 0 {
		_ = unix.Close(s.changes)
	}
	s.changes = -1
}

// choose returns an address of the family of to: of the interface if it has any,
// and of these the one that has most in common with to (RFC 6724 section 5, rule
// 8). The error wraps health.ErrUnable and names the fix.
func (s *sources) choose(iface string, to netip.Addr) (netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return netip.Addr{}, err
	}
	key := choice{iface, to}
	if chosen, ok := s.chosen[key]; ok {
		return chosen, nil
	}
	best, bestRank := netip.Addr{}, -1
	for i := range s.addresses {
		a := &s.addresses[i]
		if a.addr.Is4() != to.Is4() {
			continue
		}
		if r := a.rank(iface, to); r > bestRank {
			best, bestRank = a.addr, r
		}
	}
	if !best.IsValid() {
		family := familyOf(to)
		return best, fmt.Errorf("this box has no %s address on %s, so the %s VIP cannot be checked through its backends; give it one, or set check_address: backend: %w",
			family, iface, family, health.ErrUnable)
	}
	s.chosen[key] = best
	return best, nil
}

// rank says how good an address is to ask from; the first of equals counts.
func (a *address) rank(iface string, to netip.Addr) int {
	rank := common(a.addr, to)
	if !a.temporary {
		rank += 1 << 8
	}
	if !a.loopback {
		rank += 1 << 9
	}
	if a.iface == iface || a.parent == iface {
		rank += 1 << 10
	}
	return rank
}

// common returns how many leading bits two addresses of a family share.
func common(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		if x[i] != y[i] {
			return i*8 + bits.LeadingZeros8(x[i]^y[i])
		}
	}
	return 128
}

// refresh reads the addresses anew if there was a change. What the change was does
// not matter, nor that notifications were lost. It is called with mu held.
func (s *sources) refresh() error {
	if s.changes < 0 {
		return fmt.Errorf("%w: %w", ErrClosed, health.ErrUnable)
	}
	var buf [512]byte
	for {
		n, _, err := unix.Recvfrom(s.changes, buf[:], unix.MSG_TRUNC)
		if n <= 0 && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			break
		}
		s.known = false
	}
	if s.known {
		return nil
	}
	clear(s.chosen)
	links, err := s.handle.LinkList()
	if err == nil || errors.Is(err, netlink.ErrDumpInterrupted) {
		err = s.load(links)
	}
	if err != nil {
		return fmt.Errorf("read the addresses of this box: %w: %w", err, health.ErrUnable)
	}
	s.known = true
	return nil
}

// load keeps those addresses that are good to ask from: of global scope, and not
// on their way in or out.
func (s *sources) load(links []netlink.Link) error {
	byIndex := make(map[int]*netlink.LinkAttrs, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	list, err := s.handle.AddrList(nil, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	s.addresses = s.addresses[:0]
	for i := range list {
		a := &list[i]
		const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
		if a.IPNet == nil || a.Scope != int(netlink.SCOPE_UNIVERSE) || a.Flags&unusable != 0 {
			continue
		}
		addr, ok := netip.AddrFromSlice(a.IP)
		link := byIndex[a.LinkIndex]
		if !ok || link == nil || link.RawFlags&unix.IFF_UP == 0 {
			continue
		}
		parent := ""
		if on := byIndex[link.ParentIndex]; on != nil && link.ParentIndex != 0 {
			parent = on.Name
		}
		s.addresses = append(s.addresses, address{
			parent: parent,
			addr:   addr.Unmap(), index: a.LinkIndex, iface: link.Name,
			loopback:  link.RawFlags&unix.IFF_LOOPBACK != 0,
			temporary: a.Flags&unix.IFA_F_TEMPORARY != 0, // IFA_F_SECONDARY is the same bit
		})
	}
	return nil
}

// filtered says why the kernel drops what comes from a VIP to one of the box's
// addresses, "" if it does not. It takes answers to come in by the interface that
// has the address.
func (s *sources) filtered(source, vip netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := path{source, vip}
	if v, ok := s.verdicts[key]; ok && time.Since(v.at) < fresh {
		return v.problem
	}
	if len(s.verdicts) > 1024 {
		clear(s.verdicts)
	}
	problem := ""
	if s.refresh() == nil {
		for i := range s.addresses {
			if a := &s.addresses[i]; a.addr == source {
				problem = s.reverse(a, vip)
				break
			}
		}
	}
	s.verdicts[key] = verdict{problem, time.Now()}
	return problem
}

// reverse repeats the reverse-path filter (RFC 3704; ip-sysctl.rst, rp_filter; of
// the values for all and for the interface, the greater counts).
func (s *sources) reverse(a *address, vip netip.Addr) string {
	mode := max(reversePath("all"), reversePath(a.iface))
	if mode == 0 || a.loopback {
		return ""
	}
	fix := fmt.Sprintf("sysctl -w net.ipv4.conf.all.rp_filter=%%d net.ipv4.conf.%s.rp_filter=%%d",
		strings.ReplaceAll(a.iface, ".", "/"))
	routes, err := s.handle.RouteGet(vip.AsSlice())
	switch {
	case err != nil || len(routes) == 0:
		return fmt.Sprintf("rp_filter of %s is %d and this box has no route to %s, so its kernel drops the answers; add a route, or "+fix,
			a.iface, mode, vip, 0, 0)
	case mode == 1 && routes[0].LinkIndex != a.index:
		return fmt.Sprintf("rp_filter of %s is strict and the route to %s does not leave by it, so this box's kernel drops the answers; "+fix,
			a.iface, vip, 2, 2)
	}
	return ""
}

// reversePath reads one setting of the calling thread's namespace; 0 if it cannot
// be read.
func reversePath(iface string) int {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", iface, "rp_filter"))
	if err != nil {
		return 0
	}
	mode, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return mode
}
