package seed

import (
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func via(to, gateway string, metric int) Route {
	r := Route{To: netip.MustParsePrefix(to), Metric: metric}
	if gateway != "" {
		r.Via = netip.MustParseAddr(gateway)
	}
	return r
}

func TestNetwork(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0, 1, 2}
	for name, c := range map[string]struct {
		text    string
		want    []Link
		ignored []string
		err     string
	}{
		"version-2": {
			text: `
version: 2
ethernets:
  front:
    match: {macaddress: "52:54:00:00:01:02"}
    set-name: eth0
    addresses: [10.1.0.2/24, "2001:db8::2/64"]
    gateway4: 10.1.0.1
    routes:
      - {to: 10.9.0.0/16, via: 10.1.0.9, metric: 50}
      - {to: "::/0", via: "2001:db8::1"}
    nameservers: {addresses: [10.1.0.53], search: [example.com]}
    mtu: 1400
  eth1: {dhcp4: true, optional: true}
  eth2: {dhcp6: true, match: {name: eth2}}
vlans:
  front.42: {id: 42, link: front, addresses: [10.42.0.2/24]}
bonds: {bond0: {}}
`,
			want: []Link{
				{Name: "eth1", DHCP4: true},
				{Name: "eth2", DHCP6: true, AcceptRA: true},
				{
					Name: "eth0", MAC: mac, Addresses: prefixes("10.1.0.2/24", "2001:db8::2/64"), MTU: 1400, DNS: addrs("10.1.0.53"), Search: []string{"example.com"},
					Routes: []Route{via("0.0.0.0/0", "10.1.0.1", 0), via("10.9.0.0/16", "10.1.0.9", 50), via("::/0", "2001:db8::1", 0)},
				},
				{Name: "front.42", VLAN: 42, Parent: "eth0", Addresses: prefixes("10.42.0.2/24")},
			},
			ignored: []string{"network-config: bonds: the appliance has ethernets and vlans"},
		},
		"below-version-2": {
			text: `
version: 2
ethernets:
  eth0:
    match: {name: eth0, driver: virtio_net}
    dhcp4: true
    dhcp4-overrides: {use-dns: false}
    routes: [{to: default, via: 172.31.1.1, on-link: true, table: 7}]
    nameservers: {options: [rotate]}
vlans:
  eth0.1: {id: 1, link: eth0, link-local: []}
`,
			want: []Link{
				{Name: "eth0", DHCP4: true, Routes: []Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.31.1.1"), OnLink: true}}},
				{Name: "eth0.1", VLAN: 1, Parent: "eth0"},
			},
			ignored: []string{
				"network-config: eth0: dhcp4-overrides: the appliance has no such setting",
				"network-config: eth0: match: driver: the appliance has no such setting",
				"network-config: eth0: nameservers: options: the appliance has no such setting",
				"network-config: eth0: routes: table: the appliance has no such setting",
				"network-config: eth0.1: link-local: the appliance has no such setting",
			},
		},
		"below-version-1": {
			text: `
version: 1
config:
  - {type: physical, name: eth0, wakeonlan: true, subnets: [{type: dhcp, ipv4: true, routes: [{network: 10.0.0.0/8, gateway: 10.1.0.9, onlink: true}]}]}
  - {type: nameserver, address: 10.1.0.54, interface: eth0}
`,
			want: []Link{{Name: "eth0", DHCP4: true, Routes: []Route{via("10.0.0.0/8", "10.1.0.9", 0)}, DNS: addrs("10.1.0.54")}},
			ignored: []string{
				"network-config: physical eth0: wakeonlan: the appliance has no such setting",
				"network-config: physical eth0: subnets: ipv4: the appliance has no such setting",
				"network-config: physical eth0: routes: onlink: the appliance has no such setting",
				"network-config: nameserver: interface: the appliance has no such setting",
			},
		},
		"wrapped": {text: "network: {version: 2, ethernets: {eth0: {dhcp4: true}}}\n", want: []Link{{Name: "eth0", DHCP4: true}}},
		"version-1": {
			text: `
version: 1
config:
  - type: physical
    name: eth0
    mac_address: '52:54:00:00:01:02'
    subnets:
      - {type: static, address: 10.1.0.2, netmask: 255.255.255.0, gateway: 10.1.0.1, dns_nameservers: [10.1.0.53], routes: [{network: 10.9.0.0, netmask: 255.255.0.0, gateway: 10.1.0.9}]}
      - {type: static6, address: "2001:db8::2/64", gateway: "2001:db8::1"}
  - {type: physical, name: eth1, subnets: [{type: dhcp4}, {type: ipv6_slaac}]}
  - {type: vlan, name: eth0.42, vlan_link: eth0, vlan_id: 42, mtu: 1400, subnets: [{type: manual}]}
  - {type: nameserver, address: [10.1.0.54], search: example.com}
  - {type: bond, name: bond0}
`,
			want: []Link{
				{
					Name: "eth0", MAC: mac, Addresses: prefixes("10.1.0.2/24", "2001:db8::2/64"), DNS: addrs("10.1.0.53", "10.1.0.54"), Search: []string{"example.com"},
					Routes: []Route{via("0.0.0.0/0", "10.1.0.1", 0), via("10.9.0.0/16", "10.1.0.9", 0), via("::/0", "2001:db8::1", 0)},
				},
				{Name: "eth1", DHCP4: true, AcceptRA: true},
				{Name: "eth0.42", VLAN: 42, Parent: "eth0", MTU: 1400},
			},
			ignored: []string{"network-config: bond bond0: the appliance has physical, vlan and nameserver"},
		},
		"version-3":      {text: "version: 3\n", err: "neither 1 nor 2"},
		"no-length":      {text: "version: 2\nethernets: {eth0: {addresses: [10.0.0.1]}}\n", err: "want 10.0.0.1/BITS"},
		"name-of-a-path": {text: "version: 2\nethernets: {../../x: {dhcp4: true}}\n", err: "no name of an interface"},
		"pattern":        {text: "version: 2\nethernets: {all: {match: {name: 'en*'}, dhcp4: true}}\n", err: "no name of an interface"},
		"mac-twice":      {text: "version: 2\nethernets: {a: {match: {macaddress: '52:54:00:00:00:01'}}, b: {match: {macaddress: '52:54:00:00:00:01'}}}\n", err: "another has the MAC"},
		"name-twice":     {text: "version: 2\nethernets: {a: {match: {name: c}}, b: {match: {name: c}}}\n", err: "twice"},
		"set-name-alone": {text: "version: 2\nethernets: {a: {set-name: b}}\n", err: "set-name needs"},
		"netmask":        {text: "version: 1\nconfig: [{type: physical, name: a, subnets: [{type: static, address: 10.0.0.1, netmask: 255.0.255.0}]}]\n", err: "does not fit"},
		"families":       {text: "version: 2\nethernets: {a: {routes: [{to: 10.0.0.0/8, via: '::1'}]}}\n", err: "two families"},
		"search":         {text: "version: 2\nethernets: {a: {nameservers: {search: [\"a\\nb\"]}}}\n", err: "no domain"},
		"vlan-of-nobody": {text: "version: 2\nvlans: {a.1: {id: 1, link: a}}\n", err: "link a is not there"},
		"vlan-0":         {text: "version: 2\nethernets: {a: {}}\nvlans: {a.1: {link: a}}\n", err: "want a VLAN"},
		// Half of it would leave the box unreachable in a way that nobody expects.
		"second-wrong": {text: "version: 2\nethernets: {a: {dhcp4: true}, b: {mtu: 1}}\n", err: "mtu 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(Files{NetworkConfig: []byte(c.text)})
			if !reflect.DeepEqual(s.Links, c.want) {
				t.Errorf("got  %+v\nwant %+v", s.Links, c.want)
			}
			if !reflect.DeepEqual(s.Ignored, c.ignored) {
				t.Errorf("ignored %q, want %q", s.Ignored, c.ignored)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func TestUnits(t *testing.T) {
	got := units([]Link{
		{
			Name: "eth0", MAC: net.HardwareAddr{0x52, 0x54, 0, 0, 1, 2}, DHCP4: true, MTU: 1400, Addresses: prefixes("10.1.0.2/24"), DNS: addrs("10.1.0.53"), Search: []string{"a.example", "b.example"},
			Routes: []Route{via("0.0.0.0/0", "10.1.0.1", 0), via("10.9.0.0/16", "", 50), {To: netip.MustParsePrefix("10.8.0.0/16"), Via: netip.MustParseAddr("10.1.9.9"), OnLink: true}},
		},
		{Name: "eth0.42", VLAN: 42, Parent: "eth0", DHCP6: true, AcceptRA: true},
	})
	want := map[string]string{
		"10-eth0.network": `[Match]
Name=eth0
MACAddress=52:54:00:00:01:02

[Link]
MTUBytes=1400

[Network]
DHCP=ipv4
IPv6AcceptRA=false
ConfigureWithoutCarrier=yes
Address=10.1.0.2/24
DNS=10.1.0.53
Domains=a.example b.example
VLAN=eth0.42

[Route]
Destination=0.0.0.0/0
Gateway=10.1.0.1

[Route]
Destination=10.9.0.0/16
Metric=50

[Route]
Destination=10.8.0.0/16
Gateway=10.1.9.9
GatewayOnLink=yes
`,
		"10-eth0.42.netdev":  "[NetDev]\nName=eth0.42\nKind=vlan\n\n[VLAN]\nId=42\n",
		"10-eth0.42.network": "[Match]\nName=eth0.42\n\n[Network]\nDHCP=ipv6\nIPv6AcceptRA=true\nConfigureWithoutCarrier=yes\n",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if all := units(nil); len(all) != 1 || !strings.Contains(all["80-dhcp.network"], "DHCP=yes") {
		t.Errorf("without a network-config: %q", all)
	}
}
