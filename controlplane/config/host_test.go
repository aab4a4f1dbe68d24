package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseOnHost(t *testing.T) {
	const text = `interfaces:
  - {name: eth1, cpus: [0, 1]}
  - {name: eth7, cpus: [2]}
services:
  - name: web
    addresses: [192.0.2.1, "2001:db8::1"]
    ports: [tcp/80]
    backends:
      - {address: 10.0.0.1}
      - {address: 10.0.0.2}
      - {address: "2001:db8:2::1"}
`
	check := func(host Host) error {
		_, _, err := Parse("test.yaml", []byte(text), &host)
		return err
	}
	addr := netip.MustParseAddr
	fits := Host{
		Interfaces: []string{"lo", "eth1", "eth7"},
		Addresses:  []netip.Addr{addr("127.0.0.1"), addr("10.0.0.9"), addr("fe80::1%eth1")},
		CPUs:       []int{0, 1, 2, 3},
	}
	if errs := check(fits); errs != nil {
		t.Errorf("on a host that fits:\n%v", errs)
	}
	fits.CPUs = nil
	if errs := check(fits); errs != nil {
		t.Errorf("on a host of unknown CPUs:\n%v", errs)
	}

	got := check(Host{
		Interfaces: []string{"lo", "eth1"},
		Addresses:  []netip.Addr{addr("10.0.0.2"), addr("::ffff:192.0.2.1"), addr("2001:db8::1")},
		CPUs:       []int{0, 2},
	}).Error()
	const want = `test.yaml:2: interfaces[0].cpus[1]: weir may not run on cpu 1; want one of 0, 2
test.yaml:3: interfaces[1].name: unknown interface eth7; this box has lo, eth1
test.yaml:6: services[0].addresses[0]: VIP 192.0.2.1 is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it
test.yaml:6: services[0].addresses[1]: VIP 2001:db8::1 is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it
test.yaml:10: services[0].backends[1].address: 10.0.0.2 is the box's own address; want that of another machine`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}

	// A mistake in the text does not hide what does not fit the host.
	mistaken := strings.Replace(text, "tcp/80", "tcp/http", 1)
	_, _, err := Parse("test.yaml", []byte(mistaken), &Host{Interfaces: []string{"lo", "eth1"}, CPUs: []int{0, 1, 2}})
	if errs, _ := err.(Errors); len(errs) != 2 || errs[0].Line != 3 || errs[1].Line != 7 {
		t.Errorf("one mistake in the text and one on the host gave:\n%v", err)
	}
}
