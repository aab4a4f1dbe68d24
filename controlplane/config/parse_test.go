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
	got, warnings, err := Load("../../docs/example.yaml", nil)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	service := func(s Service) Service {
		full := Service{
			Mode: ModeDSR, ClientAddress: ClientSNAT, TableSize: 65537, MinBackends: 1,
			Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
			Ping: PingAlways, Reject: RejectDrop, Limits: noLimits(),
		}
		full.Name, full.Addresses, full.Ports, full.Health, full.Backends = s.Name, s.Addresses, s.Ports, s.Health, s.Backends
		full.Pool, full.Families, full.Labels, full.Share, full.Announce = s.Pool, s.Families, s.Labels, s.Share, s.Announce
		return full
	}
	checked := func(h Health, to CheckAddress) *Health {
		h.Address, h.Interval, h.Timeout, h.Rise, h.Fall = to, 2*time.Second, time.Second, 2, 3
		return &h
	}
	backend := func(a string, check uint16) Backend {
		return Backend{Address: addr(a), Weight: 100, State: Active, CheckPort: check}
	}
	number := func(n uint32) *uint32 { return &n }

	web := service(Service{
		Name:      "web",
		Addresses: []netip.Addr{addr("203.0.113.10"), addr("2001:db8:1::10")},
		Ports:     []Port{{TCP, 80, 80}, {TCP, 443, 443}},
		Announce:  []Announce{AnnounceL2},
		Health: checked(Health{HTTP: &HTTPCheck{
			Port: 443, Path: "/healthz", Host: "www.example.com", Method: "GET", Codes: []Codes{{200, 399}}, Body: "ready|warming up",
			TLS: &TLS{ServerName: "www.example.com", Verify: true, MinVersion: "1.2"},
		}}, CheckVIP),
		Backends: []Backend{
			{Address: addr("10.0.0.11"), Weight: 100, State: Active, VLAN: 42, MTU: 1400, CheckPort: 443},
			{Address: addr("10.0.0.12"), Weight: 50, State: Draining, CheckPort: 443},
			backend("2001:db8:2::11", 443),
		},
	})
	web.Limits = Limits{20000, 500000, SourceLimits{24, 56, 100, 10000}}
	web.ACL = ACL{
		Allow: []netip.Prefix{prefix("192.0.2.0/24"), prefix("2001:db8:a::/48")},
		Deny:  []netip.Prefix{prefix("192.0.2.7/32")},
	}
	game := service(Service{
		Name:      "game",
		Addresses: []netip.Addr{addr("2001:db8:1::20")},
		Ports:     []Port{{UDP, 5000, 5999}, {TCP, 1, 65535}},
		Announce:  []Announce{AnnounceL2},
		Health:    checked(Health{TCP: &TCPCheck{Port: 7000}}, CheckVIP),
		Backends:  []Backend{backend("10.20.0.5", 7000), {Address: addr("2001:db8:3::5"), Weight: 200, State: Active, CheckPort: 7000}},
	})
	game.Mode, game.TableSize = ModeIPIP, 4099
	game.Affinity, game.AffinityPrefix, game.AffinityPrefix6 = AffinitySource, 24, 56
	game.Health.Interval, game.Health.Timeout = 500*time.Millisecond, 500*time.Millisecond
	shop := service(Service{
		Name:      "shop",
		Addresses: []netip.Addr{addr("203.0.113.30"), addr("2001:db8:1::30")},
		Ports:     []Port{{TCP, 443, 443}},
		Announce:  []Announce{AnnounceL2, AnnounceBGP},
		Health:    checked(Health{TCP: &TCPCheck{Port: 443}}, CheckBackend),
		Backends:  []Backend{backend("10.0.0.21", 8443), backend("fd00::21", 443)},
	})
	shop.Mode, shop.Backends[0].Port = ModeNAT, 8443
	cart := service(Service{
		Name: "cart", Pool: "public", Families: []Family{IPv4, IPv6}, Share: "edge",
		Ports:    []Port{{TCP, 8443, 8443}},
		Health:   checked(Health{GRPC: &GRPCCheck{Port: 8443, Service: "shop.v1.Cart", TLS: &TLS{ServerName: "cart.example.com", Verify: true, MinVersion: "1.2"}}}, CheckVIP),
		Backends: []Backend{backend("10.20.0.41", 8443)},
	})
	cart.Mode = ModeIPIP
	ntp := append([]byte{0xe3, 0, 6, 0xec, 11: 0}, "1N14"...)

	want := &Config{
		Node: "lb1",
		Interfaces: []Interface{
			{Name: "eth1", Driver: DriverAuto, XDPMode: XDPAuto, Queues: AllQueues, CPUs: []int{1}},
			{Name: "eth2", Driver: DriverAFXDP, XDPMode: XDPCopy, Queues: 2, CPUs: []int{2, 3}},
		},
		Pools: []Pool{{
			Name: "public",
			Ranges: []Range{
				{addr("203.0.113.0"), addr("203.0.113.15")}, {addr("203.0.113.64"), addr("203.0.113.80")},
				{addr("2001:db8:1::1:0"), addr("2001:db8:1::1:ffff")},
			},
			Announce: []Announce{AnnounceL2, AnnounceBGP}, AutoAssign: true, AvoidBuggyIPs: true, Priority: 10,
			Selector: map[string]string{"tier": "gold"},
			L2:       PoolL2{Interfaces: []string{"eth1"}, AllActive: true},
			BGP: PoolBGP{
				Communities: []string{"65010:100", "65010:1:2", "65535:65281"}, LocalPref: number(100), MED: number(10),
				Aggregation: 32, Aggregation6: 128, Peers: []string{"router1"},
			},
		}, {
			Name: "office", Ranges: []Range{{addr("10.0.4.16"), addr("10.0.4.31")}}, Announce: []Announce{AnnounceL2},
			BGP: PoolBGP{Aggregation: 32, Aggregation6: 128},
		}},
		Services: []Service{web, game, shop, service(Service{
			Name: "resolver", Families: []Family{IPv4, IPv6}, Labels: map[string]string{"tier": "gold"}, Share: "edge",
			Ports: []Port{{UDP, 53, 53}, {TCP, 53, 53}},
			Health: checked(Health{DNS: &DNSCheck{
				Port: 53, Name: "www.example.com", Type: "A", Transport: "udp", Codes: []string{"NOERROR"}, Expect: []string{"192.0.2.1"},
			}}, CheckVIP),
			Backends: []Backend{backend("10.0.0.31", 53), backend("2001:db8:2::31", 53)},
		}), cart, service(Service{
			Name: "clock", Pool: "office", Families: []Family{IPv4},
			Ports:    []Port{{UDP, 123, 123}},
			Health:   checked(Health{UDP: &UDPCheck{Port: 123, Send: append(ntp, make([]byte, 32)...)}}, CheckVIP),
			Backends: []Backend{backend("10.0.0.51", 123)},
		}), service(Service{
			Name: "syslog", Pool: "office", Families: []Family{IPv4},
			Ports:    []Port{{UDP, 514, 514}},
			Health:   checked(Health{ICMP: &ICMPCheck{}}, CheckVIP),
			Backends: []Backend{backend("10.0.0.52", 0)},
		})},
		Flows: Flows{1 << 20, 125000, Timeouts{30 * time.Second, 10 * time.Second, 15 * time.Minute, 20 * time.Second, time.Minute, 5 * time.Second}},
		NAT: NAT{
			Addresses: []netip.Addr{
				addr("10.0.0.240"), addr("10.0.0.241"), addr("10.0.0.242"), addr("10.0.0.243"),
				addr("10.0.0.248"), addr("10.0.0.249"), addr("10.0.0.250"),
				addr("fd00::f0"), addr("fd00::f1"), addr("fd00::f2"), addr("fd00::f3"),
			},
			Ports: PortRange{1024, 65535},
		},
		Cluster: &Cluster{
			Bind: netip.MustParseAddrPort("10.0.0.2:7946"), Advertise: netip.MustParseAddrPort("10.0.0.2:7946"),
			Peers: []string{"10.0.0.3:7946", "10.0.0.4:7946"}, Key: []byte("weir-example-key-of-32-bytes...."),
		},
		BGP: &BGP{
			ASN: 65010, RouterID: addr("10.0.0.2"), Listen: netip.MustParseAddrPort("10.0.0.2:179"),
			NextHop: addr("10.0.0.2"), NextHop6: addr("2001:db8:2::2"), ShutdownDelay: 5 * time.Second,
			Peers: []BGPPeer{{
				Name: "router1", Address: addr("10.0.0.1"), ASN: 65000, LocalASN: 65011, Port: 179, Source: addr("10.0.0.2"), Multihop: 2,
				Password: "secret", HoldTime: 90 * time.Second, KeepaliveTime: 30 * time.Second, ConnectRetry: 5 * time.Second,
				Families: []Family{IPv4, IPv6}, NextHop: addr("10.0.0.2"), NextHop6: addr("2001:db8:2::2"),
				Communities: []string{"65535:65282"}, MED: number(20), GracefulRestart: true, RestartTime: 2 * time.Minute, Pools: []string{"public"},
			}, {
				Name: "2001:db8:2::1", Address: addr("2001:db8:2::1"), ASN: 65010, Port: 179,
				HoldTime: 90 * time.Second, KeepaliveTime: 30 * time.Second, ConnectRetry: 5 * time.Second,
				Families: []Family{IPv4, IPv6}, LocalPref: number(200), RestartTime: 2 * time.Minute,
			}},
		},
		PathMTU: PathMTULearn,
		IPIP:    IPIP{SourcePrefix: prefix("172.16.0.0/16"), Source6: addr("2001:db8:9::1")},
		API:     API{"/run/weir/weir.sock", "127.0.0.1:9090"},
		Log:     Log{"info", "text"},

		StateDir: "/var/lib/weir",
	}
	want.NAT.Shared.Addresses = []netip.Addr{addr("10.0.0.2")}
	want.NAT.Shared.Ports = PortRange{50000, 59999}
	got.pos, got.snat = positions{}, nil
	if !reflect.DeepEqual(got, want) {
		for i := range want.Services {
			if i < len(got.Services) && !reflect.DeepEqual(got.Services[i], want.Services[i]) {
				t.Errorf("got:  %+v, checks %+v\nwant: %+v, checks %+v", got.Services[i], got.Services[i].Health, want.Services[i], want.Services[i].Health)
			}
		}
		t.Errorf("got:  %+v, %+v, %+v\nwant: %+v, %+v, %+v", got, got.Cluster, got.BGP, want, want.Cluster, want.BGP)
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
	want.StateDir = "/var/lib/weir"
	want.Interfaces = []Interface{{Name: "eth1", Driver: DriverAuto, XDPMode: XDPAuto}}
	want.Services = []Service{{
		Name:      "web",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Ports:     []Port{{UDP, 53, 53}, {TCP, 8000, 8010}, {TCP, 443, 443}},
		Mode:      ModeDSR, ClientAddress: ClientSNAT, TableSize: 65537,
		Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
		Ping: PingAlways, Reject: RejectDrop, Limits: noLimits(),
		Announce: []Announce{AnnounceL2}, MinBackends: 1,
		Health: &Health{
			Address:  CheckVIP,
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
