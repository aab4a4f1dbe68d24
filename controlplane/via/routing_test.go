package via

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/lab/netlab"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func iface(name string, addrs ...string) netlab.Iface {
	i := netlab.Iface{Name: name}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

// state is all of the box's routing that a person can see.
func (w *world) state() string {
	w.t.Helper()
	var all strings.Builder
	for _, args := range []string{"-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "-o link", "-o addr"} {
		out, err := w.box.Run(context.Background(), "ip", strings.Fields(args)...)
		w.must(err)
		// It says so when a namespace of another test ends meanwhile.
		text := strings.ReplaceAll(string(out), "Error: Peer netns reference is invalid.\n", "")
		fmt.Fprintf(&all, "ip %s\n%s\n", args, text)
	}
	return all.String()
}

func (w *world) ip(args string) {
	w.t.Helper()
	_, err := w.box.Run(context.Background(), "ip", strings.Fields(args)...)
	w.must(err)
}

func (w *world) openBare() *Network {
	w.t.Helper()
	var n *Network
	w.must(w.box.Do(func() (err error) { n, err = Open(discard()); return err }))
	w.t.Cleanup(func() { n.Close() })
	return n
}

func TestLeavesNothing(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	n := w.openBare()
	during := w.state()
	for _, want := range []string{"fwmark 0x77650001 lookup 2003107841", "default dev weir0 table 2003107841", "weir0: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1280"} {
		if !strings.Contains(during, want) {
			t.Errorf("%q is missing in\n%s", want, during)
		}
	}
	if strings.Contains(during, "fe80::") && strings.Contains(during, "weir0    inet6") {
		t.Errorf("the device has an address of its own:\n%s", during)
	}
	w.must(n.Close())
	if after := w.state(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// A rule that a killed process has left is taken over, and one with a number that
// is not taken is removed.
func TestTakesOver(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	w.ip("rule add priority 1 fwmark 0x77650001 table 2003107841")
	w.ip("-6 rule add priority 1 fwmark 0x77650001 table 2003107841")
	w.ip("rule add priority 3 fwmark 0x77650003 table 2003107843")
	n := w.openBare()
	if n.routing.mark != firstMark {
		t.Errorf("mark %#x, want the first", n.routing.mark)
	}
	w.must(n.Close())
	if after := w.state(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestSecondBesides(t *testing.T) {
	w := newWorld(t)
	first, second := w.openBare(), w.openBare()
	if first.routing.mark != firstMark || second.routing.mark != firstMark+1 || first.Device() == second.Device() {
		t.Errorf("marks %#x and %#x, devices %s and %s", first.routing.mark, second.routing.mark, first.Device(), second.Device())
	}
	w.must(first.Close())
	third := w.openBare()
	if third.routing.mark != firstMark {
		t.Errorf("mark %#x, want the one that is free again", third.routing.mark)
	}
	if !strings.Contains(w.state(), fmt.Sprintf("fwmark %#x", firstMark+1)) {
		t.Error("the rule of one that lives was taken away")
	}
}

func TestNumbersOfOthers(t *testing.T) {
	for _, test := range []struct{ name, args string }{
		{"mark", "rule add priority 20000 fwmark 0x77650001 table 7"},
		{"mark, IPv6", "-6 rule add priority 20000 fwmark 0x77650001 table 7"},
		{"table", "rule add priority 20000 from 10.7.0.0/16 table 2003107841"},
		{"route", "route add 10.7.0.0/16 dev eth0 table 2003107841"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.ip(test.args)
			if n := w.openBare(); n.routing.mark != firstMark+1 {
				t.Errorf("mark %#x, want the second", n.routing.mark)
			}
		})
	}
	t.Run("rule that comes first", func(t *testing.T) {
		w := newWorld(t)
		w.ip("route add default dev eth0 table 7")
		w.ip("rule add priority 0 table 7")
		before := w.state()
		err := w.box.Do(func() error { _, err := Open(discard()); return err })
		if err == nil || !strings.Contains(err.Error(), `the rule "0: from all lookup 7" comes first; give it a priority of more than 8`) {
			t.Errorf("got %v", err)
		}
		if after := w.state(); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	})
}

// Without IPv6 in the kernel, IPv4 goes on.
func TestWithoutIPv6(t *testing.T) {
	w := newWorld(t)
	w.must(w.box.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"))
	w.must(w.box.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	if got, err := w.ask(n, "tcp", vip4, "b1", patience); got != "b1" {
		t.Errorf("IPv4: answered by %q, error %v", got, err)
	}
	if _, err := w.ask(n, "tcp", vip6, "b1", patience); err == nil || !strings.Contains(err.Error(), "no IPv6 on this box") {
		t.Errorf("IPv6: %v", err)
	}
}

// The error of a start without privileges says which one is missing, and nothing
// is left. The thread that they are taken from ends with the function.
func TestWithoutPrivilege(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	for _, test := range []struct {
		capability int
		says       string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}} {
		err := w.box.Do(func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			data[0].Effective &^= 1 << test.capability
			if err := unix.Capset(&header, &data[0]); err != nil {
				return err
			}
			_, err := Open(discard())
			return err
		})
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("got %v, want something about %s", err, test.says)
		}
	}
	if after := w.state(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// What others take away is put back, and a check that fell into the gap says that
// it is not the backend's fault.
func TestKeeps(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	for _, vip := range vips { // the next ones are of a box whose way is known
		if got, err := w.ask(n, "tcp", vip, "b1", patience); got != "b1" {
			t.Errorf("answered by %q, error %v", got, err)
		}
	}
	for _, loss := range []string{
		"rule delete fwmark 0x77650001", "-6 rule delete fwmark 0x77650001", "link set weir0 down",
		"route flush table 2003107841", "-6 route flush table 2003107841",
	} {
		w.ip(loss)
		vip := vip4
		if strings.HasPrefix(loss, "-6") {
			vip = vip6
		}
		n.forgetProblems()
		if got, err := w.ask(n, "tcp", vip, "b1", brief); !errors.Is(err, health.ErrUnable) || !strings.Contains(err.Error(), "was lost") {
			t.Errorf("after %q: answered by %q, error %v", loss, got, err)
		}
		n.forgetProblems()
		if got, err := w.ask(n, "tcp", vip, "b1", patience); got != "b1" {
			t.Errorf("put back after %q: answered by %q, error %v\n%s", loss, got, err, w.state())
		}
	}
}

// A box whose IPv6 is turned off goes on with IPv4, and a backend that fails there
// is to blame as before. It goes on with IPv6 when that is back.
func TestIPv6TurnedOff(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	for _, vip := range vips {
		if got, err := w.ask(n, "tcp", vip, "b1", patience); got != "b1" {
			t.Fatalf("answered by %q, error %v", got, err)
		}
	}
	w.must(w.box.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"))
	w.must(w.backends[0].host.UnserveVIP(vip4))
	n.forgetProblems()
	if _, err := w.ask(n, "tcp", vip4, "b1", brief); err == nil || errors.Is(err, health.ErrUnable) {
		t.Errorf("IPv4, without the VIP: %v, want a failure of the backend's", err)
	}
	_ = n.routing.keep(true) // as Run does
	if _, err := w.ask(n, "tcp", vip6, "b1", brief); !errors.Is(err, health.ErrUnable) || !strings.Contains(err.Error(), "no IPv6 on this box") {
		t.Errorf("IPv6: %v", err)
	}
	w.must(w.box.Sysctl("net.ipv6.conf.all.disable_ipv6", "0"))
	w.must(w.box.AddAddr("eth0", box6))
	n.forgetProblems()
	_ = n.routing.keep(true)
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // the address is tentative at first
		got, err := w.ask(n, "tcp", vip6, "b1", patience)
		if got == "b1" {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("IPv6 is back: answered by %q, error %v\n%s", got, err, w.state())
		}
	}
}

// A backend that says no is not excused by what is wrong on the box.
func TestRefusalIsNoExcuse(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	if got, err := w.ask(n, "tcp", vip4, "b1", patience); got != "b1" {
		t.Fatalf("answered by %q, error %v", got, err)
	}
	mac := w.backends[0].mac
	w.ip("neigh replace " + vip4.String() + " dev eth0 nud permanent lladdr " + net.HardwareAddr(mac[:]).String())
	w.ip("rule delete fwmark 0x77650001")
	n.forgetProblems()
	err := w.box.Do(func() error {
		_, err := n.DialContext(t.Context(), "tcp", netip.AddrPortFrom(vip4, port+1), "b1")
		return err
	})
	if !errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, health.ErrUnable) {
		t.Errorf("got %v, want a refusal", err)
	}
}

// A box with several uplinks has rules for its source addresses.
func TestRulesForSources(t *testing.T) {
	w := newWorld(t)
	other, err := w.lab.Host("other")
	w.must(err)
	w.must(w.box.ConnectTo(other, iface("eth1", "10.9.0.1/24"), iface("eth0", "10.9.0.2/24")))
	w.ip("route add default via 10.9.0.2 table 100")
	w.ip("rule add from 10.0.0.2 lookup 100 priority 100")
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	ask := func(what string, within time.Duration, says string) {
		t.Helper()
		got, err := w.ask(n, "tcp", vip4, "b1", within)
		if says == "" && got != "b1" {
			t.Errorf("%s: answered by %q, error %v", what, got, err)
		}
		if says != "" && (!errors.Is(err, health.ErrUnable) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: answered by %q, error %v, want %q", what, got, err, says)
		}
		source, device, err := n.Leads("b1", vip4)
		if source != box4.Addr() || device != "weir0" || (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: leads from %s by %s, error %v", what, source, device, err)
		}
	}
	const says = `packets with mark 0x77650001 from 10.0.0.2 do not leave by weir0; the rule "0: from 10.0.0.2 lookup 100" comes first; give it a priority of more than 8`
	ask("usual", patience, "")
	w.ip("rule add from 10.0.0.2 lookup 100 priority 0")
	n.forgetProblems()
	ask("before ours, found with the first silence", brief, says)
	ask("before ours", patience, says)
	w.ip("rule delete from 10.0.0.2 lookup 100 priority 0")
	n.forgetProblems()
	_ = n.routing.keep(false) // as Run does
	ask("taken away", patience, "")
	w.must(w.box.AddAddr("lo", netip.PrefixFrom(vip4, 32)))
	if _, _, err := n.Leads("b1", vip4); err == nil || !strings.Contains(err.Error(), "10.0.0.200 is an address of this box; take it away") {
		t.Errorf("the box has the VIP itself: %v", err)
	}
}

// A process that is killed leaves rules and no device; the next one clears up.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	before := w.state()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), victim+"=1")
	p, err := w.box.Start(cmd)
	w.must(err)
	for limit := time.Now().Add(patience); !strings.Contains(p.Output(), "ready"); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(p.Output())
		}
	}
	w.must(p.Signal(unix.SIGKILL))
	_ = p.Wait()
	if left := w.state(); !strings.Contains(left, "fwmark 0x77650001") || strings.Contains(left, "weir0:") {
		t.Errorf("after kill -9:\n%s", left)
	}
	n := w.openBare()
	if n.routing.mark != firstMark {
		t.Errorf("mark %#x, want the first", n.routing.mark)
	}
	w.must(n.Close())
	if after := w.state(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// forgetProblems has the next check that gets no answer look for the reason.
func (n *Network) forgetProblems() {
	n.routing.mu.Lock()
	defer n.routing.mu.Unlock()
	for _, f := range n.routing.families {
		f.kept = time.Time{}
	}
}

const victim = "WEIR_VIA_VICTIM"

// TestVictim is no test but the process of TestKilled.
func TestVictim(t *testing.T) {
	if os.Getenv(victim) == "" {
		t.Skip("for TestKilled alone")
	}
	if _, err := Open(discard()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	select {}
}
