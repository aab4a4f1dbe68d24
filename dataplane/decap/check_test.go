package decap

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCheck(t *testing.T) {
	vip4, vip6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:1::10")
	const lo, nic, other = 1, 2, 3
	good := map[string]string{
		"all/arp_ignore": "1", "all/arp_announce": "2", "all/rp_filter": "0",
		"eth0.7/arp_ignore": "0", "eth0.7/arp_announce": "0", "eth0.7/rp_filter": "0",
	}
	onLo := map[netip.Addr][]int{vip4: {lo}, vip6: {lo}}

	for _, test := range []struct {
		name      string
		vips      []netip.Addr
		addresses map[netip.Addr][]int
		sysctl    map[string]string // over good
		want      []string          // fixes
	}{
		{name: "all well", vips: []netip.Addr{vip4, vip6}, addresses: onLo},
		{name: "mapped VIP", vips: []netip.Addr{netip.AddrFrom16(vip4.As16())}, addresses: onLo},
		{name: "VIPs nowhere", vips: []netip.Addr{vip4, vip6}, want: []string{
			"ip addr add 203.0.113.10/32 dev lo", "ip addr add 2001:db8:1::10/128 dev lo"}},
		{name: "VIP on the interface itself", vips: []netip.Addr{vip4},
			addresses: map[netip.Addr][]int{vip4: {lo, nic}},
			want:      []string{"ip addr del 203.0.113.10 dev eth0.7; ip addr add 203.0.113.10/32 dev lo"}},
		{name: "VIP on another interface", vips: []netip.Addr{vip4}, addresses: map[netip.Addr][]int{vip4: {other}}},
		{name: "defaults", vips: []netip.Addr{vip4}, addresses: onLo,
			sysctl: map[string]string{"all/arp_ignore": "0", "all/arp_announce": "0"},
			want:   []string{"sysctl -w net.ipv4.conf.eth0/7.arp_ignore=1", "sysctl -w net.ipv4.conf.eth0/7.arp_announce=2"}},
		{name: "set for the interface only", vips: []netip.Addr{vip4}, addresses: onLo,
			sysctl: map[string]string{"all/arp_ignore": "0", "all/arp_announce": "0", "eth0.7/arp_ignore": "1", "eth0.7/arp_announce": "2"}},
		{name: "arp_ignore by scope", vips: []netip.Addr{vip4}, addresses: onLo,
			sysctl: map[string]string{"all/arp_ignore": "3"},
			want:   []string{"sysctl -w net.ipv4.conf.eth0/7.arp_ignore=1 net.ipv4.conf.all.arp_ignore=1"}},
		{name: "strict for all", vips: []netip.Addr{vip4}, addresses: onLo,
			sysctl: map[string]string{"all/rp_filter": "1"}, want: []string{"sysctl -w net.ipv4.conf.eth0/7.rp_filter=2"}},
		{name: "strict here", vips: []netip.Addr{vip4}, addresses: onLo,
			sysctl: map[string]string{"eth0.7/rp_filter": "1"}, want: []string{"sysctl -w net.ipv4.conf.eth0/7.rp_filter=2"}},
		{name: "strict, loosened here", vips: []netip.Addr{vip4}, addresses: onLo,
			sysctl: map[string]string{"all/rp_filter": "1", "eth0.7/rp_filter": "2"}},
		{name: "IPv6 does not mind", vips: []netip.Addr{vip6}, addresses: onLo,
			sysctl: map[string]string{"all/arp_ignore": "0", "all/arp_announce": "0", "all/rp_filter": "1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := fstest.MapFS{}
			for _, values := range []map[string]string{good, test.sysctl} {
				for name, value := range values {
					files["ipv4/conf/"+name] = &fstest.MapFile{Data: []byte(value + "\n")}
				}
			}
			h := host{nic: "eth0.7", index: nic, addresses: test.addresses, sysctl: files}
			warnings, err := h.check(test.vips)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, w.Fix)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("fixes\ngot  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestCheckReportsUnreadableSysctl(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	for _, files := range []fstest.MapFS{
		{},
		{"ipv4/conf/all/arp_ignore": {Data: []byte("x\n")}},
	} {
		h := host{nic: "eth0", sysctl: files, addresses: map[netip.Addr][]int{vip: {1}}}
		if _, err := h.check([]netip.Addr{vip}); err == nil || !strings.Contains(err.Error(), "arp_ignore") {
			t.Errorf("got %v", err)
		}
	}
}
