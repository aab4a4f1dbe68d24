package netaddr

import (
	"net"
	"testing"
)

func TestPrefix(t *testing.T) {
	for _, text := range []string{"192.0.2.77/24", "0.0.0.0/0", "10.0.0.1/32", "2001:db8::77/64", "::/0", "2001:db8::1/128", "::ffff:192.0.2.1/120"} {
		p, err := ParseIPPrefix(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if p.String() != text {
			t.Errorf("%s is printed as %s", text, p)
		}
		_, want, err := net.ParseCIDR(text) // the oracle
		if err != nil {
			t.Fatal(err)
		}
		if len(want.IP) == len(p.Addr().AsSlice()) && p.Masked().IPNet().String() != want.String() {
			t.Errorf("the network of %s is %s, want %s", text, p.Masked().IPNet(), want)
		}
		if back, ok := FromStdIPNet(p.Masked().IPNet()); !p.Addr().Is4In6() && (!ok || back != p.Masked()) {
			t.Errorf("%s comes back from net as %s, %t", text, back, ok)
		}
	}
	for _, text := range []string{"", "192.0.2.1", "192.0.2.1/33", "192.0.2/24", "2001:db8::/129"} {
		if p, err := ParseIPPrefix(text); err == nil {
			t.Errorf("%q is taken for %s", text, p)
		}
	}
}

func TestFromStd(t *testing.T) {
	if ip, ok := FromStdIP(net.ParseIP("192.0.2.1")); !ok || ip.String() != "192.0.2.1" || !ip.Is4() { // 16 bytes in net
		t.Errorf("%s, %t", ip, ok)
	}
	if ip, ok := FromStdIP(net.IP{1, 2, 3}); ok {
		t.Errorf("three bytes are taken for %s", ip)
	}
	for _, n := range []*net.IPNet{
		{IP: net.IPv4(192, 0, 2, 0), Mask: net.IPv4Mask(255, 0, 255, 0)},
		{IP: net.IPv4(192, 0, 2, 0), Mask: net.CIDRMask(64, 128)},
		{IP: net.ParseIP("2001:db8::"), Mask: net.CIDRMask(24, 32)},
		{},
	} {
		if p, ok := FromStdIPNet(n); ok {
			t.Errorf("%v is taken for %s", n, p)
		}
	}
}

func TestRange(t *testing.T) {
	for _, text := range []string{"192.0.2.1-192.0.2.9", "192.0.2.1-192.0.2.1", "2001:db8::1-2001:db8::ff"} {
		r, err := ParseIPRange(text)
		if err != nil || r.String() != text || r.From().String()+"-"+r.To().String() != text {
			t.Errorf("%s: %s, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "-", "192.0.2.1", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "192.0.2.1-", "fe80::1%eth0-fe80::2%eth0"} {
		if r, err := ParseIPRange(text); err == nil {
			t.Errorf("%q is taken for %s", text, r)
		}
	}
}
