package show

import (
	"bytes"
	"encoding/json"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
)

// before is a moment that is shown as long ago even when a test takes its time.
func before(d time.Duration) time.Time { return time.Now().Add(-d - time.Second/2) }

func power(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

func announcements() []api.Announcement {
	return []api.Announcement{
		{Address: "203.0.113.0/28", Protocol: "bgp", To: "r1", State: "announced", Since: before(49 * time.Hour), Sent: 1},
		{Address: "203.0.113.10", Protocol: "arp", To: "eth1", State: "announced", Since: before(time.Hour), Sent: 3},
		{Address: "203.0.113.11", Protocol: "arp", To: "eth1", State: "standby", Owner: "lb2", Since: before(25*time.Hour + 10*time.Minute)},
		{Address: "2001:db8:1::10", Protocol: "ndp", To: "eth2", State: "conflict", Owner: "02:00:00:00:09:09", Error: "announce 2001:db8:1::10: network is down\nagain"},
		{Address: "203.0.113.53", Protocol: "l2", State: "withheld", Error: "service dns has 0 usable backends, of 1 that it needs"},
	}
}

func pools() []api.Pool {
	addr, n := netip.MustParseAddr, big.NewInt
	return []api.Pool{
		{
			Name: "public", Announce: []string{"l2", "bgp"}, AutoAssign: true,
			IPv4: &api.PoolCount{Size: n(33), Used: n(1), Free: n(32)}, IPv6: &api.PoolCount{Size: power(64), Used: n(1), Free: new(big.Int).Sub(power(64), n(1))},
			Held: []api.PoolAddress{{Address: addr("203.0.113.10"), Services: []string{"dns", "web"}}, {Address: addr("2001:db8:1::10"), Services: []string{"web"}}},
		},
		{Name: "gold", Announce: []string{}, IPv4: &api.PoolCount{Size: n(2), Used: n(0), Free: n(2)}, Held: []api.PoolAddress{}},
		{Name: "none", Announce: []string{"l2"}, Held: []api.PoolAddress{}},
	}
}

func members() []api.Member {
	at := netip.MustParseAddrPort
	return []api.Member{
		{Name: "lb1", Address: at("10.0.0.2:7946"), Self: true, Alive: true, Since: before(3 * time.Hour), Announces: 2, Version: "1.2.3"},
		{Name: "lb2", Address: at("[2001:db8::3]:7946"), Alive: true, Since: before(2 * time.Hour), Announces: 1, Version: "1.2.4"},
		{Name: "lb3", Since: before(9 * time.Hour), Error: "there are two nodes of this name"},
	}
}

func peers() []api.Peer {
	addr := netip.MustParseAddr
	return []api.Peer{
		{Name: "r1", Address: addr("10.0.0.1"), ASN: 65000, State: "established", Since: before(50 * time.Hour), Prefixes: 7, Flaps: 2, LastError: "hold timer expired", GracefulRestart: true},
		{Name: "2001:db8::1", Address: addr("2001:db8::1"), ASN: 4200000000, State: "active", LastError: "dial tcp [2001:db8::1]:179:\nconnection refused"},
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s ago", 0: "0s ago", 59 * time.Second: "59s ago", time.Minute: "1m0s ago", 59*time.Minute + 59*time.Second: "59m59s ago",
		time.Hour: "1h0m ago", 23*time.Hour + 59*time.Minute: "23h59m ago", 24 * time.Hour: "1d0h ago", 1000*24*time.Hour + 5*time.Hour: "1000d5h ago",
	} {
		if got := ago(before(d)); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	if got := ago(time.Time{}); got != "-" {
		t.Errorf("never is %q", got)
	}
}

func TestAmount(t *testing.T) {
	n := big.NewInt
	for _, tc := range []struct {
		n    *big.Int
		want string
	}{
		{n(0), "0"}, {n(16), "16"}, {n(1<<32 - 1), "4294967295"}, {power(32), "2^32"}, {power(64), "2^64"},
		{new(big.Int).Sub(power(64), n(5)), "2^64"}, {power(128), "2^128"}, {new(big.Int).Mul(power(63), n(3)), "2^64.58"},
	} {
		if got := Amount(tc.n); got != tc.want {
			t.Errorf("%s is %q, want %q", tc.n, got, tc.want)
		}
	}
}

func TestDiagnosis(t *testing.T) {
	d := api.Diagnosis{Subject: "lb1", Status: api.DiagnosisFail, Children: []api.Diagnosis{
		{Subject: "service web", Status: api.DiagnosisFail, Children: []api.Diagnosis{
			{Subject: "backend 10.0.0.11", Status: api.DiagnosisOK, Children: []api.Diagnosis{
				{Subject: "link", Status: api.DiagnosisOK, Text: "eth1 is up"},
				{Subject: "path MTU", Status: api.DiagnosisWarn, Text: "1400, and packets of the service need 1440, so that " + strings.Repeat("clients are told that theirs are too big ", 4), Fix: "raise the MTU"},
			}},
			{Subject: "backend 10.0.0.12", Status: api.DiagnosisFail, Children: []api.Diagnosis{
				{Subject: "link", Status: api.DiagnosisOK},
				{
					Subject: "VIP present", Status: api.DiagnosisFail, Text: "203.0.113.10 is not there:\nno answer from it within 1s",
					Fix: "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.eth0.arp_ignore=1\nip addr add 203.0.113.10/32 dev lo\n",
				},
				{Subject: "source of answers", Status: api.DiagnosisSkipped},
			}},
		}},
	}}
	var out bytes.Buffer
	if err := Diagnosis(&out, &d); err != nil {
		t.Fatal(err)
	}
	expect(t, "diagnosis", out.Bytes())
	for line := range strings.Lines(out.String()) {
		if n := len(line) - 1; n > lineWidth && !strings.Contains(line, "fix:") {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
			t.Errorf("ends in blanks: %q", line)
		}
	}
	out.Reset()
	var back api.Diagnosis
	if err := JSON(&out, d); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Faults() != 1 {
		t.Errorf("as JSON it is %+v, error %v", back, err)
	}
}
