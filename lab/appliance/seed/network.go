package seed

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Link is one interface of the box and how the kernel is to use it.
type Link struct {
	Name string           // as weir.yaml calls it
	MAC  net.HardwareAddr // of the one that gets the name; nil: it has it already

	DHCP4, DHCP6 bool
	AcceptRA     bool // IPv6 router advertisements
	Addresses    []netip.Prefix
	Routes       []Route
	DNS          []netip.Addr
	Search       []string
	MTU          int // bytes; 0: the driver's own

	VLAN   int    // 802.1Q tag; 0: none
	Parent string // of a VLAN
}

// Route is one to be added; Via is not valid for what is on the link.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr
	Metric int  // 0: the kernel's own
	OnLink bool // Via is on the link, although no address says so
}

var (
	defaults = map[bool]netip.Prefix{
		false: netip.PrefixFrom(netip.IPv4Unspecified(), 0),
		true:  netip.PrefixFrom(netip.IPv6Unspecified(), 0),
	}
	linkName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`) // IFNAMSIZ, and no path
	searchName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

func (s *Settings) network(text []byte) error {
	var doc struct {
		Network yaml.Node // some tools wrap the rest in it
		Version int
		Config  yaml.Node
	}
	err := yaml.Unmarshal(text, &doc)
	if err == nil && !doc.Network.IsZero() {
		if text, err = yaml.Marshal(&doc.Network); err == nil {
			return s.network(text)
		}
	}
	if err == nil {
		switch doc.Version {
		case 1:
			err = s.networkV1(&doc.Config)
		case 2:
			err = s.networkV2(text)
		default:
			err = fmt.Errorf("version %d is neither 1 nor 2", doc.Version)
		}
	}
	if err == nil {
		err = checkLinks(s.Links)
	}
	if err != nil {
		s.Links = nil // half a network is worse than DHCP, which at least can be found
		return fmt.Errorf("%s: %w", NetworkConfig, err)
	}
	return nil
}

// checkLinks looks at what ends up in files of others' formats.
func checkLinks(links []Link) error {
	seen := make(map[string]bool)
	for i, l := range links {
		if !linkName.MatchString(l.Name) {
			return fmt.Errorf("%q is no name of an interface", l.Name)
		}
		if seen[l.Name] {
			return fmt.Errorf("%s is there twice", l.Name)
		}
		seen[l.Name] = true
		if l.MAC != nil && slices.ContainsFunc(links[:i], func(o Link) bool { return bytes.Equal(o.MAC, l.MAC) }) {
			return fmt.Errorf("%s: another has the MAC address %s, too", l.Name, l.MAC)
		}
		if l.VLAN < 0 || l.VLAN > 4094 || (l.VLAN != 0) != (l.Parent != "") {
			return fmt.Errorf("%s: want a VLAN of 1 to 4094 and its link", l.Name)
		}
		if l.MTU != 0 && (l.MTU < 576 || l.MTU > 65535) {
			return fmt.Errorf("%s: mtu %d is not 576 to 65535", l.Name, l.MTU)
		}
		for _, name := range l.Search {
			if !searchName.MatchString(name) {
				return fmt.Errorf("%s: search: %q is no domain", l.Name, name)
			}
		}
	}
	for _, l := range links {
		if l.Parent != "" && !seen[l.Parent] {
			return fmt.Errorf("%s: link %s is not there", l.Name, l.Parent)
		}
	}
	return nil
}

// deviceV2 is what netplan's format, which is version 2, says of any device.
type deviceV2 struct {
	Match struct {
		MAC    string `yaml:"macaddress"`
		Name   string
		Others map[string]any `yaml:",inline"`
	}
	SetName     string `yaml:"set-name"`
	DHCP4       bool
	DHCP6       bool
	AcceptRA    *bool `yaml:"accept-ra"`
	Addresses   []string
	Gateway4    string
	Gateway6    string
	Routes      []routeV2
	MTU         int
	Optional    *bool // the appliance waits for no interface in particular
	Nameservers struct {
		Addresses []string
		Search    []string
		Others    map[string]any `yaml:",inline"`
	}
	ID     int
	Link   string
	Others map[string]any `yaml:",inline"`
}

type routeV2 struct {
	To, Via string
	Metric  int
	OnLink  bool           `yaml:"on-link"`
	Others  map[string]any `yaml:",inline"`
}

// unread says of a device what nobody reads.
func (d *deviceV2) unread(s *Settings, name string) {
	where := NetworkConfig + ": " + name
	s.unread(where, d.Others)
	s.unread(where+": match", d.Match.Others)
	s.unread(where+": nameservers", d.Nameservers.Others)
	for _, r := range d.Routes {
		s.unread(where+": routes", r.Others)
	}
}

func (s *Settings) networkV2(text []byte) error {
	var doc struct {
		Version   int
		Renderer  string
		Ethernets map[string]deviceV2
		VLANs     map[string]deviceV2 `yaml:"vlans"`
		Others    map[string]any      `yaml:",inline"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Others)) {
		s.ignore("%s: %s: the appliance has ethernets and vlans", NetworkConfig, name)
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Ethernets)) {
		d := doc.Ethernets[name]
		d.unread(s, name)
		l, err := d.link(name)
		if err == nil && d.Match.MAC != "" {
			l.MAC, err = net.ParseMAC(d.Match.MAC)
		}
		switch {
		case err != nil:
		case d.SetName != "":
			l.Name = d.SetName
			if l.MAC == nil {
				err = errors.New("set-name needs match: macaddress")
			}
		case d.Match.Name != "" && l.MAC == nil:
			l.Name = d.Match.Name // one with a * is refused by checkLinks
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.Links = append(s.Links, l)
	}
	for _, name := range slices.Sorted(maps.Keys(doc.VLANs)) {
		d := doc.VLANs[name]
		d.unread(s, name)
		l, err := d.link(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		l.VLAN, l.Parent = d.ID, d.Link
		if parent, ok := doc.Ethernets[d.Link]; ok && parent.SetName != "" {
			l.Parent = parent.SetName // vlans go by the key, which need not be the name
		}
		s.Links = append(s.Links, l)
	}
	return nil
}

func (d *deviceV2) link(name string) (Link, error) {
	l := Link{Name: name, DHCP4: d.DHCP4, DHCP6: d.DHCP6, MTU: d.MTU, Search: d.Nameservers.Search}
	l.AcceptRA = d.DHCP6
	if d.AcceptRA != nil {
		l.AcceptRA = *d.AcceptRA
	}
	var errs []error
	for _, text := range d.Addresses {
		errs = append(errs, l.addAddress(text, ""))
	}
	for _, text := range d.Nameservers.Addresses {
		errs = append(errs, l.addDNS(text))
	}
	for _, text := range []string{d.Gateway4, d.Gateway6} {
		if text != "" {
			errs = append(errs, l.addRoute("default", "", text, 0))
		}
	}
	for _, r := range d.Routes {
		if err := l.addRoute(r.To, "", r.Via, r.Metric); err != nil {
			errs = append(errs, err)
			continue
		}
		l.Routes[len(l.Routes)-1].OnLink = r.OnLink
	}
	return l, errors.Join(errs...)
}

// itemV1 is one of the list that version 1 is.
type itemV1 struct {
	Type     string
	Name     string
	MAC      string `yaml:"mac_address"`
	MTU      int
	VLANLink string    `yaml:"vlan_link"`
	VLANID   int       `yaml:"vlan_id"`
	Address  yaml.Node // of a nameserver: one or a list
	Search   yaml.Node
	Subnets  []subnetV1
	AcceptRA *bool          `yaml:"accept-ra"`
	Others   map[string]any `yaml:",inline"`
}

type subnetV1 struct {
	Type    string
	Address string
	Netmask string
	Gateway string
	DNS     yaml.Node `yaml:"dns_nameservers"`
	Search  yaml.Node `yaml:"dns_search"`
	Routes  []struct {
		Network, Destination, Netmask, Gateway string
		Metric                                 int
		Others                                 map[string]any `yaml:",inline"`
	}
	Others map[string]any `yaml:",inline"`
}

// unread says of an item what nobody reads.
func (item *itemV1) unread(s *Settings) {
	where := strings.TrimSpace(NetworkConfig + ": " + item.Type + " " + item.Name)
	s.unread(where, item.Others)
	for _, sub := range item.Subnets {
		s.unread(where+": subnets", sub.Others)
		for _, r := range sub.Routes {
			s.unread(where+": routes", r.Others)
		}
	}
}

func (s *Settings) networkV1(n *yaml.Node) error {
	var items []itemV1
	if err := n.Decode(&items); err != nil {
		return err
	}
	var dns []string
	var search []string
	for _, item := range items {
		var err error
		switch item.Type {
		case "physical", "vlan":
			item.unread(s)
			var l Link
			if l, err = item.link(); err == nil {
				s.Links = append(s.Links, l)
			}
		case "nameserver":
			item.unread(s)
			dns = append(dns, oneOrMore(&item.Address)...)
			search = append(search, oneOrMore(&item.Search)...)
		default:
			s.ignore("%s: %s %s: the appliance has physical, vlan and nameserver", NetworkConfig, item.Type, item.Name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", item.Name, err)
		}
	}
	if len(s.Links) == 0 {
		return nil
	}
	// A name server belongs to no interface in this version; to the resolver they
	// are all the same.
	first := &s.Links[0]
	for _, text := range dns {
		if err := first.addDNS(text); err != nil {
			return err
		}
	}
	first.Search = append(first.Search, search...)
	return nil
}

func (item *itemV1) link() (Link, error) {
	l := Link{Name: item.Name, MTU: item.MTU}
	var err error
	if item.Type == "vlan" {
		l.VLAN, l.Parent = item.VLANID, item.VLANLink
	} else if item.MAC != "" {
		if l.MAC, err = net.ParseMAC(item.MAC); err != nil {
			return l, err
		}
	}
	for _, sub := range item.Subnets {
		if err := sub.addTo(&l); err != nil {
			return l, err
		}
	}
	if item.AcceptRA != nil {
		l.AcceptRA = *item.AcceptRA
	}
	return l, nil
}

func (sub *subnetV1) addTo(l *Link) error {
	switch sub.Type {
	case "dhcp", "dhcp4":
		l.DHCP4 = true
	case "dhcp6", "ipv6_dhcpv6-stateful", "ipv6_dhcpv6-stateless":
		l.DHCP6, l.AcceptRA = true, true
	case "ipv6_slaac":
		l.AcceptRA = true
	case "manual":
	case "static", "static6":
		if err := l.addAddress(sub.Address, sub.Netmask); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a subnet of type %q is none of dhcp, static and manual", sub.Type)
	}
	var errs []error
	if sub.Gateway != "" {
		errs = append(errs, l.addRoute("default", "", sub.Gateway, 0))
	}
	for _, r := range sub.Routes {
		to := r.Network
		if to == "" {
			to = r.Destination
		}
		errs = append(errs, l.addRoute(to, r.Netmask, r.Gateway, r.Metric))
	}
	for _, text := range oneOrMore(&sub.DNS) {
		errs = append(errs, l.addDNS(text))
	}
	l.Search = append(l.Search, oneOrMore(&sub.Search)...)
	return errors.Join(errs...)
}

// oneOrMore returns a scalar as a list of one.
func oneOrMore(n *yaml.Node) (list []string) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Value != "" {
			list = []string{n.Value}
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			list = append(list, item.Value)
		}
	}
	return list
}

func (l *Link) addAddress(text, netmask string) error {
	p, err := prefix(text, netmask)
	if err == nil && p.Addr().IsUnspecified() {
		err = fmt.Errorf("%s is no address", text)
	}
	l.Addresses = append(l.Addresses, p)
	return err
}

func (l *Link) addDNS(text string) error {
	a, err := netip.ParseAddr(text)
	l.DNS = append(l.DNS, a)
	return err
}

func (l *Link) addRoute(to, netmask, via string, metric int) (err error) {
	r := Route{Metric: metric}
	if via != "" {
		if r.Via, err = netip.ParseAddr(via); err != nil {
			return err
		}
	}
	if to == "default" || to == "0.0.0.0/0" || to == "::/0" {
		if via == "" {
			return errors.New("a default route needs a gateway")
		}
		r.To = defaults[r.Via.Is6()]
	} else if r.To, err = prefix(to, netmask); err != nil {
		return err
	}
	r.To = r.To.Masked()
	if via != "" && r.To.Addr().Is6() != r.Via.Is6() {
		return fmt.Errorf("route to %s via %s: of two families", to, via)
	}
	l.Routes = append(l.Routes, r)
	return nil
}

// prefix reads ADDRESS/BITS, or ADDRESS with a netmask as 255.255.255.0 or as bits.
func prefix(text, netmask string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	var bits int
	if netmask != "" {
		if bits, err = strconv.Atoi(netmask); err != nil {
			mask, err := netip.ParseAddr(netmask)
			if err != nil {
				return netip.Prefix{}, fmt.Errorf("netmask %q: %w", netmask, err)
			}
			ones, size := net.IPMask(mask.AsSlice()).Size()
			if size == 0 || size != a.BitLen() {
				return netip.Prefix{}, fmt.Errorf("netmask %q does not fit %s", netmask, text)
			}
			bits = ones
		}
	} else {
		return netip.Prefix{}, fmt.Errorf("%s has no length; want %s/BITS", text, text)
	}
	if p := netip.PrefixFrom(a, bits); p.IsValid() {
		return p, nil
	}
	return netip.Prefix{}, fmt.Errorf("%s: %d bits", text, bits)
}
