package decap

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Warning is one thing about the host that keeps packets for a VIP from being
// received or answered as they should, though they are decapsulated.
type Warning struct {
	Problem string
	Fix     string // shell commands
}

// Check looks at what a host needs besides the program, if tunnelled packets
// for vips arrive on the named NIC: each VIP on an interface, but not on one
// that would claim it on the wire, and no filter on the way
// (Documentation/networking/ip-sysctl.rst). It looks at the network namespace
// of the calling thread, changes nothing, and needs no privilege.
func Check(nic string, vips []netip.Addr) ([]Warning, error) {
	dev, err := netlink.LinkByName(nic)
	if err != nil {
		return nil, fmt.Errorf("decap: check interface %q: %w", nic, err)
	}
	addresses, err := hostAddresses()
	if err != nil {
		return nil, err
	}
	h := host{nic: nic, index: dev.Attrs().Index, addresses: addresses, sysctl: os.DirFS("/proc/sys/net")}
	return h.check(vips)
}

// host is what Check looks at.
type host struct {
	nic       string
	index     int
	addresses map[netip.Addr][]int // and the indexes of the interfaces that have them
	sysctl    fs.FS                // /proc/sys/net
}

func (h *host) check(vips []netip.Addr) ([]Warning, error) {
	var found []Warning
	has4 := false
	for _, vip := range vips {
		vip = vip.Unmap()
		has4 = has4 || vip.Is4()
		bits := vip.BitLen()
		at, local := h.addresses[vip]
		switch {
		case !local:
			found = append(found, Warning{
				Problem: fmt.Sprintf("VIP %s is on no interface, so the kernel will not take its packets", vip),
				Fix:     fmt.Sprintf("ip addr add %s/%d dev lo", vip, bits),
			})
		case slices.Contains(at, h.index):
			found = append(found, Warning{
				Problem: fmt.Sprintf("VIP %s is on %s itself, so this host answers ARP or NDP for it", vip, h.nic),
				Fix:     fmt.Sprintf("ip addr del %s dev %s; ip addr add %s/%d dev lo", vip, h.nic, vip, bits),
			})
		}
	}
	if !has4 {
		return found, nil // what follows is only of IPv4; NDP answers per interface anyway
	}

	for _, rule := range []struct {
		name, problem string
		good          []int
		set           int
	}{
		{"arp_ignore", "this host answers ARP for VIPs that are on another interface, lo for one", []int{1, 2, 8}, 1},
		{"arp_announce", "this host may ask by ARP with a VIP as the sender, and so claim it", []int{2}, 2},
		{"rp_filter", "strict reverse path filter: clients that are not routed back through " + h.nic + " are dropped", []int{0, 2}, 2},
	} {
		value, err := h.effective(rule.name)
		if err != nil {
			return found, err
		}
		if slices.Contains(rule.good, value) {
			continue
		}
		fix := fmt.Sprintf("sysctl -w net.ipv4.conf.%s.%s=%d", strings.ReplaceAll(h.nic, ".", "/"), rule.name, rule.set)
		if value > rule.set { // the greater one counts, and either may be it
			fix += fmt.Sprintf(" net.ipv4.conf.all.%s=%d", rule.name, rule.set)
		}
		found = append(found, Warning{Problem: fmt.Sprintf("%s (%s is %d)", rule.problem, rule.name, value), Fix: fix})
	}
	return found, nil
}

// effective is the greater of the values for all interfaces and for this one,
// which is how the kernel combines these three.
func (h *host) effective(name string) (int, error) {
	most := 0
	for _, conf := range []string{"all", h.nic} {
		file := path.Join("ipv4/conf", conf, name)
		text, err := fs.ReadFile(h.sysctl, file)
		if err != nil {
			return 0, fmt.Errorf("decap: read sysctl: %w", err)
		}
		value, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, fmt.Errorf("decap: read sysctl %s: %w", file, err)
		}
		most = max(most, value)
	}
	return most, nil
}
