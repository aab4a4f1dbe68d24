package api

import (
	"context"
	"errors"
	"math/big"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/controlplane/announce"
	"weir/controlplane/ipam"
)

func (f *fake) Announcements() []announce.Status {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	one := func(a string) netip.Prefix { return netip.PrefixFrom(addr(a), addr(a).BitLen()) }
	return []announce.Status{
		{Address: prefix("203.0.113.0/28"), Protocol: "bgp", To: "r1", State: announce.Announced, Since: noon(), Sent: 1, Last: noon()},
		{Address: one("203.0.113.10"), Protocol: "arp", To: "eth1", State: announce.Announced, Since: noon(), Sent: 3, Last: noon()},
		{Address: one("203.0.113.10"), Protocol: "arp", To: "eth2", State: announce.Down, Since: noon(), Err: "look up interface: no such network interface"},
		{Address: one("203.0.113.10"), Protocol: "arp", To: "eth2", State: announce.Probing}, // twice, as should not be
		{Address: one("2001:db8:1::10"), Protocol: "ndp", To: "eth1", State: announce.Standby, Owner: "lb2", Since: noon(), Sent: 2, Last: noon()},
	}
}

func (f *fake) Pools() []Pool {
	n := big.NewInt
	huge := new(big.Int).Lsh(n(1), 64)
	return []Pool{
		NewPool(ipam.Usage{Pool: "gold", IPv4: ipam.Count{Size: n(2), Used: n(0), Free: n(2)}, IPv6: ipam.Count{Size: n(0), Used: n(0), Free: n(0)}}, nil, false),
		NewPool(ipam.Usage{
			Pool: "public", IPv4: ipam.Count{Size: n(16), Used: n(1), Free: n(15)}, IPv6: ipam.Count{Size: huge, Used: n(1), Free: new(big.Int).Sub(huge, n(1))},
			Held: []ipam.Held{{Address: netip.MustParseAddr("203.0.113.10"), Services: []string{"dns", "web"}}, {Address: netip.MustParseAddr("2001:db8:1::10"), Services: []string{"web"}}},
		}, []string{"l2", "bgp"}, true),
	}
}

func (f *fake) Members() []Member {
	if f.members != nil {
		return f.members
	}
	at := netip.MustParseAddrPort
	return []Member{
		{Name: "lb1", Address: at("10.0.0.2:7946"), Self: true, Alive: true, Since: noon(), Announces: 2, Version: "1.2.3"},
		{Name: "lb2", Address: at("10.0.0.3:7946"), Alive: true, Since: noon(), Announces: 1, Version: "1.2.3"},
		{Name: "lb3", Since: noon(), Error: "there are two nodes of this name"},
	}
}

func (f *fake) Peers() []Peer {
	return []Peer{
		{Name: "r1", Address: netip.MustParseAddr("10.0.0.1"), ASN: 65000, State: "established", Since: noon(), Prefixes: 1, Flaps: 2, GracefulRestart: true},
		{Name: "r2", Address: netip.MustParseAddr("2001:db8::1"), ASN: 4200000000, State: "active", LastError: "connection refused"},
	}
}

func (f *fake) Doctor(ctx context.Context, service string) (Diagnosis, error) {
	if f.doctor != nil {
		return f.doctor(ctx, service)
	}
	return Diagnosis{Subject: "lb1", Status: DiagnosisFail, Children: []Diagnosis{
		{Subject: "10.0.0.11", Status: DiagnosisFail, Children: []Diagnosis{
			{Subject: "link", Status: DiagnosisOK, Text: "eth1 is up"},
			{Subject: "vip", Status: DiagnosisFail, Text: "203.0.113.10 is not there", Fix: "ip addr add 203.0.113.10/32 dev lo"},
			{Subject: "source", Status: DiagnosisSkipped},
		}},
	}}, nil
}

func TestPoolsSurviveTheWay(t *testing.T) {
	f := newFake()
	socket, _ := serve(t, f)
	var got []Pool
	if err := NewClient(socket).Get(t.Context(), "pools", &got); err != nil || !reflect.DeepEqual(got, f.Pools()) {
		t.Errorf("got %+v, error %v", got, err)
	}
}

// Scripts go through lists, also through empty ones.
func TestEmptyLists(t *testing.T) {
	f := newFake()
	f.members = []Member{}
	socket, _ := serve(t, f)
	if code, body := ask(t, socket, "GET", "/v1/members"); code != http.StatusOK || body != "[]\n" {
		t.Errorf("%d: %q", code, body)
	}
	if got := orEmpty[int](nil); got == nil || len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestDoctor(t *testing.T) {
	f := newFake()
	var asked []string
	f.doctor = func(ctx context.Context, service string) (Diagnosis, error) {
		asked = append(asked, service)
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a diagnosis may take for ever")
		}
		return Diagnosis{Subject: service, Status: DiagnosisOK}, f.refuse
	}
	socket, _ := serve(t, f)
	c := NewClient(socket)
	var d Diagnosis
	for _, query := range []string{"doctor", "doctor?service=web"} {
		if err := c.Get(t.Context(), query, &d); err != nil || d.Subject != asked[len(asked)-1] {
			t.Errorf("%s: %+v, error %v", query, d, err)
		}
	}
	for query, want := range map[string]string{
		"doctor?service=we":  `no such service: "we"; there are web, dns`,
		"doctor?backend=web": `"backend" is unknown here: /v1/doctor wants service`,
	} {
		if err := c.Get(t.Context(), query, &d); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", query, err, want)
		}
	}
	if !reflect.DeepEqual(asked, []string{"", "web"}) {
		t.Errorf("asked %q", asked)
	}
	f.refuse = errors.New("weir is about to end")
	if err := c.Get(t.Context(), "doctor", &d); err == nil || err.Error() != "diagnose: weir is about to end" {
		t.Errorf("error %v", err)
	}
}

// A client that gives up before the server does gets no diagnosis at all.
func TestPatience(t *testing.T) {
	for what, want := range map[string]time.Duration{
		"doctor": time.Minute, "doctor?service=plan": time.Minute, "services": 5 * time.Second, "flows?limit=1": 25 * time.Second, "plan?name=x": 25 * time.Second,
	} {
		if got := patience(what); got != want {
			t.Errorf("%s may take %s, want %s", what, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	of := func(s Verdict, children ...Diagnosis) Diagnosis { return Diagnosis{Status: s, Children: children} }
	for _, tc := range []struct {
		d    Diagnosis
		want int
	}{
		{of(DiagnosisOK), 0},
		{of(DiagnosisWarn, of(DiagnosisSkipped)), 0},
		{of(DiagnosisFail), 1},
		{of(DiagnosisFail, of(DiagnosisOK)), 1},
		{of(DiagnosisFail, of(DiagnosisFail, of(DiagnosisFail), of(DiagnosisOK)), of(DiagnosisFail)), 2},
		{of(DiagnosisOK, of(DiagnosisFail)), 1},
	} {
		if got := tc.d.Faults(); got != tc.want {
			t.Errorf("%+v has %d faults, want %d", tc.d, got, tc.want)
		}
	}
}

func TestMetricsOfConnections(t *testing.T) {
	f := newFake()
	f.status = f.status[:2] // those that answer
	const want = `# HELP weir_backend_tcp_established_total Of those, the ones that the backend answered.
# TYPE weir_backend_tcp_established_total counter
weir_backend_tcp_established_total{backend="10.0.0.11",service="web"} 0
weir_backend_tcp_established_total{backend="10.0.0.12",service="web"} 5
weir_backend_tcp_established_total{backend="10.0.0.53",service="dns"} 0
`
	if err := testutil.GatherAndCompare(newRegistry(f), strings.NewReader(want), "weir_backend_tcp_established_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(newRegistry(f)); err != nil || len(problems) > 0 {
		t.Errorf("%v, error %v", problems, err)
	}
}

// A check that has said nothing yet says neither that the backend is up nor that
// it is down.
func TestMetricsOfHealth(t *testing.T) {
	rows, err := testutil.GatherAndCount(newRegistry(newFake()), "weir_backend_health_up")
	if err != nil || rows != 2 {
		t.Errorf("%d rows of 3 checks, error %v", rows, err)
	}
}
