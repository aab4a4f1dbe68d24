package config

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the .errors files instead of comparing with them")

// TestBadFiles compares every mistake and warning in testdata/*.yaml with the
// .errors file next to it. A file without one is good and has nothing to warn of.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, warnings, err := Parse(filepath.Base(file), data, nil)
			var got strings.Builder
			if err != nil {
				got.WriteString(err.Error() + "\n")
				if c != nil {
					t.Error("there is an error and a Config")
				}
			}
			for _, w := range warnings {
				got.WriteString(w.Error() + "\n")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".errors"
			if *update && got.Len() > 0 {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
		})
	}
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, warnings, err := Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("unexpected warning: %v", w)
	}
	return c
}

// noLimits is the limits of a service that has none.
func noLimits() Limits { return Limits{PerSource: SourceLimits{Prefix: 32, Prefix6: 64}} }

func TestFull(t *testing.T) {
	got, _, err := Load("../../docs/example.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	want := &Config{
		Node: "lb1",
		Interfaces: []Interface{
			{Name: "eth1", Driver: DriverAuto, XDPMode: XDPAuto, Queues: AllQueues, CPUs: []int{1}},
			{Name: "eth2", Driver: DriverAFXDP, XDPMode: XDPCopy, Queues: 2, CPUs: []int{2, 3}},
		},
		Services: []Service{{
			Name:      "web",
			Addresses: []netip.Addr{addr("203.0.113.10"), addr("2001:db8:1::10")},
			Ports:     []Port{{TCP, 80, 80}, {TCP, 443, 443}},
			Mode:      ModeDSR, ClientAddress: ClientSNAT, TableSize: 65537,
			Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
			Ping: PingAlways, Reject: RejectDrop,
			Limits: Limits{20000, 500000, SourceLimits{24, 56, 100, 10000}},
			ACL: ACL{
				Allow: []netip.Prefix{prefix("192.0.2.0/24"), prefix("2001:db8:a::/48")},
				Deny:  []netip.Prefix{prefix("192.0.2.7/32")},
			},
			Health: &Health{
				HTTP:     &HTTPCheck{Port: 80, Path: "/healthz", Host: "www.example.com", Method: "GET", Codes: []Codes{{200, 399}}},
				Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
			},
			Backends: []Backend{
				{Address: addr("10.0.0.11"), Weight: 100, State: Active, VLAN: 42, MTU: 1400, CheckPort: 80},
				{Address: addr("10.0.0.12"), Weight: 50, State: Draining, CheckPort: 80},
				{Address: addr("2001:db8:2::11"), Weight: 100, State: Active, CheckPort: 80},
			},
		}, {
			Name:      "game",
			Addresses: []netip.Addr{addr("2001:db8:1::20")},
			Ports:     []Port{{UDP, 5000, 5999}, {TCP, 1, 65535}},
			Mode:      ModeIPIP, ClientAddress: ClientSNAT, TableSize: 4099,
			Affinity: AffinitySource, AffinityPrefix: 24, AffinityPrefix6: 56,
			Ping: PingAlways, Reject: RejectDrop, Limits: noLimits(),
			Health: &Health{
				TCP:      &TCPCheck{Port: 7000},
				Interval: 500 * time.Millisecond, Timeout: 500 * time.Millisecond, Rise: 2, Fall: 3,
			},
			Backends: []Backend{
				{Address: addr("10.20.0.5"), Weight: 100, State: Active, CheckPort: 7000},
				{Address: addr("2001:db8:3::5"), Weight: 200, State: Active, CheckPort: 7000},
			},
		}, {
			Name:      "shop",
			Addresses: []netip.Addr{addr("203.0.113.30"), addr("2001:db8:1::30")},
			Ports:     []Port{{TCP, 443, 443}},
			Mode:      ModeNAT, ClientAddress: ClientSNAT, TableSize: 65537,
			Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
			Ping: PingAlways, Reject: RejectDrop, Limits: noLimits(),
			Health: &Health{
				TCP:      &TCPCheck{Port: 443},
				Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
			},
			Backends: []Backend{
				{Address: addr("10.0.0.21"), Weight: 100, State: Active, Port: 8443, CheckPort: 8443},
				{Address: addr("fd00::21"), Weight: 100, State: Active, CheckPort: 443},
			},
		}},
		Flows: Flows{1 << 20, 125000, Timeouts{30 * time.Second, 10 * time.Second, 15 * time.Minute, 20 * time.Second, time.Minute, 5 * time.Second}},
		NAT: NAT{
			Addresses: []netip.Addr{
				addr("10.0.0.240"), addr("10.0.0.241"), addr("10.0.0.242"), addr("10.0.0.243"),
				addr("10.0.0.248"), addr("10.0.0.249"), addr("10.0.0.250"),
				addr("fd00::f0"), addr("fd00::f1"), addr("fd00::f2"), addr("fd00::f3"),
			},
			Ports: PortRange{1024, 65535},
		},
		PathMTU: PathMTULearn,
		IPIP:    IPIP{SourcePrefix: prefix("172.16.0.0/16"), Source6: addr("2001:db8:9::1")},
		API:     API{"/run/weir/weir.sock", "127.0.0.1:9090"},
		Log:     Log{"info", "text"},
	}
	want.NAT.Shared.Addresses = []netip.Addr{addr("10.0.0.2")}
	want.NAT.Shared.Ports = PortRange{50000, 59999}
	got.pos, got.snat = positions{}, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:  %+v\nwant: %+v", got, want)
	}
}

func TestDefaults(t *testing.T) {
	got := parse(t, `
interfaces: [{name: eth1}]
services:
  - name: web
    addresses: [192.0.2.1]
    ports: [udp/53, tcp/8000-8010, tcp/443]
    health: {http: {}}
    backends: [{address: 10.0.0.1}]
`)
	want := defaults()
	want.Interfaces = []Interface{{Name: "eth1", Driver: DriverAuto, XDPMode: XDPAuto}}
	want.Services = []Service{{
		Name:      "web",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Ports:     []Port{{UDP, 53, 53}, {TCP, 8000, 8010}, {TCP, 443, 443}},
		Mode:      ModeDSR, ClientAddress: ClientSNAT, TableSize: 65537,
		Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
		Ping: PingAlways, Reject: RejectDrop, Limits: noLimits(),
		Health: &Health{
			HTTP:     &HTTPCheck{Port: 8000, Path: "/", Method: "GET", Codes: []Codes{{200, 399}}},
			Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
		},
		Backends: []Backend{{Address: netip.MustParseAddr("10.0.0.1"), Weight: 100, State: Active, CheckPort: 8000}},
	}}
	got.pos, got.snat = positions{}, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:  %+v\nwant: %+v", got, want)
	}
	if want.Node == "" || want.Flows != (Flows{Entries: 1048576, NewRate: 125000}) || want.PathMTU != PathMTULearn || want.NAT.Ports != (PortRange{1024, 65535}) || want.API.Socket != "/run/weir/weir.sock" || want.Log != (Log{"info", "text"}) {
		t.Errorf("defaults: %+v", want)
	}
}
