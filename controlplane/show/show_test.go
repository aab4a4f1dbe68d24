package show

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// answers is what the weir of these tests says, by noun.
func answers() map[string]any {
	addr := netip.MustParseAddr
	load := api.Load{Traffic: api.Traffic{Packets: 123456, Bytes: 5 << 20}, NewFlows: 900, Flows: 12}
	return map[string]any{
		"services": []api.Service{
			{
				Name: "web", Mode: "dsr", Affinity: "flow", TableSize: 65537, Addresses: []netip.Addr{addr("203.0.113.10"), addr("2001:db8:1::10")},
				Ports: []string{"tcp/80", "tcp/443"}, Backends: 3, Usable: 2, Load: load,
			},
			{
				Name: "api", Mode: "nat", ClientAddress: "keep", Addresses: []netip.Addr{addr("203.0.113.11")}, Ports: []string{"tcp/443"},
				Limits: &api.Limits{NewFlows: 20000, Prefix: 24, Prefix6: 56, PacketsPerSrc: 100}, ACL: &api.ACL{Allow: 3, Deny: 1},
			},
			{Name: "a-service-with-a-long-name", Mode: "ipip", Addresses: []netip.Addr{addr("203.0.113.53")}, Ports: []string{"udp/53"}, Backends: 1},
		},
		"backends": []api.Backend{
			{
				Service: "web", Address: addr("10.0.0.11"), Weight: 100, Share: 0.3333, Admin: "active", Status: "up", Load: load,
				Health: &api.Health{State: "up", Kind: "http", Target: "vip", Port: 80}, Path: &api.Path{Interface: "eth1", DstMAC: "02:00:00:00:02:0b", MTU: 1500},
			},
			{
				Service: "web", Address: addr("10.0.0.12"), Weight: 200, Admin: "active", Status: "down", Reason: "dial tcp 10.0.0.12:80:\nconnection refused",
				Health: &api.Health{State: "down", Kind: "icmp", Target: "backend"},
				Path:   &api.Path{Interface: "eth1", DstMAC: "02:00:00:00:02:01", VLAN: 42, Gateway: addr("10.0.0.1")},
			},
			{
				Service: "web", Address: addr("10.0.0.13"), Weight: 200, WeightNow: 60, WeightUntil: time.Now().Add(time.Hour + 10*time.Second), Share: 0.1, Status: "up",
				Path: &api.Path{Interface: "eth1", DstMAC: "02:00:00:00:02:0d", MTU: 1400, MTUSource: "learned"},
			},
			{
				Service: "web", Address: addr("10.0.0.14"), Weight: 1, WeightNow: 0.9, WeightUntil: time.Now().Add(time.Hour + 10*time.Second), Status: "up", Drained: true,
				Path: &api.Path{Interface: "eth1", DstMAC: "02:00:00:00:02:0e", MTU: 1500, MTUSource: "link"},
			},
			{Service: "dns", Address: addr("2001:db8::53"), Weight: 1, Share: 1, Status: "unreachable", Reason: "interface eth2 is down"},
		},
		"flows": api.Flows{Truncated: true, Flows: []api.Flow{
			{
				Protocol: "tcp", Client: netip.MustParseAddrPort("198.51.100.7:40000"), VIP: netip.MustParseAddrPort("203.0.113.10:80"),
				SNAT:    netip.MustParseAddrPort("10.0.0.240:2003"),
				Service: "web", Backend: addr("10.0.0.11"), State: "established", IdleMS: 62, Interface: "eth1", Worker: 3,
			},
			{
				Protocol: "udp", Client: netip.MustParseAddrPort("[2001:db8:7::7]:5353"), VIP: netip.MustParseAddrPort("[2001:db8:1::10]:53"),
				State: "udp", IdleMS: 125437, Interface: "eth2",
			},
		}},
		"workers": []api.Worker{
			{
				Interface: "eth1", CPU: 1, Received: api.Traffic{Packets: 1000}, Transmitted: api.Traffic{Packets: 900}, HandedOver: api.Traffic{Packets: 50},
				Dropped: 50, ARPReplies: 1, NDPReplies: 2, EchoReplies: 3, Flows: 12, FlowCapacity: 1 << 20, FlowsEvicted: 7, KernelDropped: 4, KernelInvalid: 5,
				Drops: map[string]uint64{"denied": 3, "source_limit": 4}, Spread: api.Traffic{Packets: 17},
			},
			{Interface: "eth1", Queue: 1, FlowCapacity: 1024, Untrusted: 5, Refused: 6, Unrecorded: 7, NATTakenOver: 8},
			{Interface: "eth2", Queue: 11, CPU: -1, Error: "worker stopped"},
		},
		"nat": api.NAT{
			Addresses: []api.SNAT{
				{Address: addr("10.0.0.240"), Ports: "1024-65535", Blocks: 1008, InUse: 4},
				{Address: addr("2001:db8:1:2:5054:ff:fe12:3456"), Shared: true, Ports: "50000-59999", Blocks: 158},
			},
			Flows: 250, TakenOver: 3, Exhausted: 2,
		},
		"drops": []api.Drop{
			{Reason: "truncated", Help: "shorter than its headers say", Packets: 7},
			{Reason: "no_backend", Help: "the service has no usable backend"},
		},
		"interfaces": []api.Interface{
			{Name: "eth1", Up: true, MAC: "02:00:00:00:01:01", MTU: 1500, Driver: "afxdp", Mode: "copy", Workers: 4, Reasons: []string{"afxdp zero-copy: not supported"}},
			{Name: "eth2", MAC: "02:00:00:00:01:02", MTU: 9000, Driver: "afpacket", Workers: 1},
			{Name: "eth4", Up: true, Stuck: true, MAC: "02:00:00:00:01:04", MTU: 1500, Driver: "afxdp", Mode: "copy", Workers: 2},
			{Name: "eth3", Error: "open interface eth3:\nthe first\nthe second", MAC: "00:00:00:00:00:00"},
		},
		"announcements": announcements(),
		"pools":         pools(),
		"members":       members(),
		"peers":         peers(),
	}
}

// weir answers for a running one, and notes what it is asked.
func weir(t *testing.T) (client *api.Client, asked *string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "weir.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked = new(string)
	all := answers()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = r.Method + " " + r.URL.String()
		if err := json.NewEncoder(w).Encode(all[strings.TrimPrefix(r.URL.Path, "/v1/")]); err != nil {
			t.Error(err)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return api.NewClient(socket), asked
}

func TestTables(t *testing.T) {
	client, _ := weir(t)
	in := regexp.MustCompile(`in 1h0m\d+s`)
	for _, n := range Nouns() {
		t.Run(n.Name, func(t *testing.T) {
			var out bytes.Buffer
			if err := n.Show(t.Context(), client, &out, "", false); err != nil {
				t.Fatal(err)
			}
			got := in.ReplaceAll(out.Bytes(), []byte("in 1h0m0s"))
			path := filepath.Join("testdata", n.Name+".txt")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// Whatever is shown in a column begins below its heading, with empty cells or
// notes before it or not.
func TestColumnsGoThrough(t *testing.T) {
	long := strings.Repeat("123456789 ", 12)
	var out bytes.Buffer
	err := Write(&out, []Row{
		{Cells: []string{"NAME", "PATH", "SENT"}},
		{[]string{"one", "a long path"}, []string{"", "refused\nagain\there"}},
		{[]string{"two", "-", "5"}, []string{long, "a second"}},
		{Cells: []string{"", "", "x\ny"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `NAME  PATH         SENT
one   a long path
    refused; again here
two   -            5
    123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789
    123456789 123456789 123456789
    a second
                   x; y
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

// What is shown after months of traffic, with IPv6 addresses as autoconfigured
// and interface names as the kernel gives them, still fits the terminal.
func TestTablesFit(t *testing.T) {
	addr := netip.MustParseAddr
	traffic := api.Traffic{Packets: 9_999_999_999, Bytes: 999 << 40}
	sentence := strings.Repeat("nothing that works better works here ", 5)
	for name, rows := range map[string][]Row{
		"services": servicesTable([]api.Service{{
			Name: "customer-portal-production", Mode: "nat", ClientAddress: "keep", Usable: 100, Backends: 100, Load: api.Load{Traffic: traffic, NewFlows: 9_999_999_999, Flows: 1 << 20},
			Addresses: slices.Repeat([]netip.Addr{addr("2001:db8:1:2:5054:ff:fe12:3456")}, 20), Ports: slices.Repeat([]string{"tcp/50000-59999"}, 20),
		}}),
		"backends": backendsTable([]api.Backend{{
			Service: "webservice-1", Address: addr("2001:db8:1:2:5054:ff:fe12:3456"), Weight: 1_000_000, Share: 1, Status: "unreachable", Reason: sentence,
			WeightNow: 999_999.9, WeightUntil: time.Now().Add(59 * time.Minute), Health: &api.Health{State: "unknown"}, Load: api.Load{Traffic: traffic, NewFlows: 9_999_999_999, Flows: 1 << 20},
			Path: &api.Path{Interface: "enp129s0f0np0", DstMAC: "02:00:00:00:02:01", VLAN: 4094, Gateway: addr("2001:db8:1:2:5054:ff:fe12:3457"), MTU: 65535, MTUSource: "configured"},
		}}),
		"nat": natTable(api.NAT{Flows: 9_999_999, TakenOver: 9_999_999_999, Exhausted: 9_999_999_999, Addresses: []api.SNAT{
			{Address: addr("2001:db8:1:2:5054:ff:fe12:3456"), Shared: true, Ports: "10000-65535", Blocks: 1024, InUse: 1024},
		}}),
		"workers": workersTable([]api.Worker{{
			Interface: "enp1s0f0", Queue: 7, CPU: 127, Received: traffic, Transmitted: traffic, HandedOver: traffic, Dropped: 9_999_999, KernelDropped: 9_999_999,
			KernelInvalid: 99_999, Flows: 1 << 18, FlowCapacity: 1 << 20, FlowsEvicted: 9_999_999_999, ARPReplies: 9_999_999_999, Error: sentence,
		}}),
		"interfaces": interfacesTable([]api.Interface{{
			Name: "enp129s0f0np0", MAC: "02:00:00:00:01:01", MTU: 65536, Driver: "afpacket", Mode: "zero-copy", Workers: 64, Error: sentence, Reasons: []string{sentence, sentence},
		}}),
		"announcements": announcementsTable([]api.Announcement{{
			Address: "2001:db8:1:2:5054:ff:fe12:3456", To: "enp129s0f0np0", Protocol: "arp", State: "announced", Sent: 9_999_999_999,
			Owner: "lb2.in-a-datacentre.example.com", Since: time.Now().Add(-9999 * time.Hour), Error: sentence,
		}}),
		"pools": poolsTable([]api.Pool{{
			Name: "public-addresses-of-the-south", Announce: []string{"l2", "bgp"}, AutoAssign: true, IPv6: &api.PoolCount{Size: power(100), Used: big.NewInt(1 << 31), Free: power(99)},
			Held: []api.PoolAddress{{Address: addr("2001:db8:1:2:5054:ff:fe12:3456"), Services: slices.Repeat([]string{"customer-portal-production"}, 9)}},
		}}),
		"members": membersTable([]api.Member{{
			Name: "lb2.example.com", Address: netip.MustParseAddrPort("[2001:db8:1:2:5054:ff:fe12:3456]:7946"), Self: true, Alive: true, Since: time.Now().Add(-9999 * time.Hour), Announces: 9999,
			Version: "12.34.56", Error: sentence,
		}}),
		"peers": peersTable([]api.Peer{{
			Name: "2001:db8:1:2:5054:ff:fe12:3456", Address: addr("2001:db8:1:2:5054:ff:fe12:3456"), ASN: 4200000000, State: "established", Since: time.Now().Add(-9999 * time.Hour),
			Prefixes: 9999, Flaps: 999_999_999, GracefulRestart: true, LastError: sentence,
		}}),
	} {
		var out bytes.Buffer
		if err := Write(&out, rows); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := len(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: %d columns:\n%s", name, n, line)
			}
		}
		if strings.Count(out.String(), "\n") < 3 {
			t.Errorf("%s:\n%s", name, out.String())
		}
	}
}

func TestCheckService(t *testing.T) {
	client, asked := weir(t)
	if err := CheckService(t.Context(), client, "web"); err != nil || *asked != "GET /v1/services" {
		t.Errorf("a service that is there: %v, asked %q", err, *asked)
	}
	const want = `no such service: "we"; there are web, api, a-service-with-a-long-name`
	if err := CheckService(t.Context(), client, "we"); err == nil || err.Error() != want {
		t.Errorf("a service that is not there: %v", err)
	}
	if err := CheckService(t.Context(), api.NewClient("/nowhere/weir.sock"), "web"); err == nil || !strings.Contains(err.Error(), "no weir is running") {
		t.Errorf("without a weir: %v", err)
	}
}

func TestJSON(t *testing.T) {
	client, _ := weir(t)
	for _, n := range Nouns() {
		var out bytes.Buffer
		if err := n.Show(t.Context(), client, &out, "", true); err != nil {
			t.Fatal(err)
		}
		var got, want any
		encoded, err := json.Marshal(answers()[n.Name])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(encoded, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", n.Name, err)
		}
		for name, key := range map[string]string{"announcements": "since", "members": "since", "peers": "since", "backends": "weight_until"} { // made at another moment
			if n.Name == name {
				for _, all := range []any{got, want} {
					for _, row := range all.([]any) {
						row.(map[string]any)[key] = nil
					}
				}
			}
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Errorf("%s:\n got %s\nwant %s", n.Name, a, b)
		}
	}
}

func TestQueryIsPassedOn(t *testing.T) {
	client, asked := weir(t)
	for _, n := range Nouns() {
		if n.Name != "flows" {
			continue
		}
		var out bytes.Buffer
		if err := n.Show(t.Context(), client, &out, "limit=10&service=web", false); err != nil {
			t.Fatal(err)
		}
	}
	if *asked != "GET /v1/flows?limit=10&service=web" {
		t.Errorf("asked for %q", *asked)
	}
}

func TestNoWeir(t *testing.T) {
	client := api.NewClient(filepath.Join(t.TempDir(), "none.sock"))
	for _, n := range Nouns() {
		var out bytes.Buffer
		if err := n.Show(t.Context(), client, &out, "", false); err == nil || !strings.Contains(err.Error(), "no weir is running") || out.Len() > 0 {
			t.Errorf("%s: error %v, output %q", n.Name, err, out.String())
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 999 * 1024: "999.0 KiB", 1000 * 1024: "1.0 MiB",
		5 << 20: "5.0 MiB", 1 << 30: "1.0 GiB", 1 << 40: "1.0 TiB", 1 << 50: "1.0 PiB", 1<<64 - 1: "16384.0 PiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}
