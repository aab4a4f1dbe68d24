package via

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/dataplane/rewrite"
)

var vips = []netip.Addr{vip4, vip6}

// Everything has to reach the one backend that was meant, though both have the
// VIP, and the kernel may not look for the VIP on the link.
func TestReaches(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	for _, b := range w.backends {
		w.decapsulate(b)
	}
	for _, kind := range []struct {
		name string
		way  func(b *backend) Way
	}{
		{"dsr", w.dsr},
		{"ipip over IPv4", func(b *backend) Way { return w.ipip(b, false) }},
		{"ipip over IPv6", func(b *backend) Way { return w.ipip(b, true) }},
	} {
		n.SetWays(map[string]Way{"b1": kind.way(w.backends[0]), "b2": kind.way(w.backends[1])})
		for _, filter := range []string{"0", "1", "2"} {
			w.must(w.box.Sysctl("net.ipv4.conf.all.rp_filter", filter))
			for _, vip := range vips {
				for _, way := range []string{"b1", "b2"} {
					name := fmt.Sprintf("%s, %s, %s, rp_filter %s", kind.name, vip, way, filter)
					for _, network := range []string{"tcp", "udp"} {
						if got, err := w.ask(n, network, vip, way, patience); got != way || err != nil {
							t.Errorf("%s: %s: answered by %q, error %v", name, network, got, err)
						}
					}
					if err := w.ping(n, vip, way, patience); err != nil {
						t.Errorf("%s: ping: %v", name, err)
					}
				}
			}
		}
	}
	time.Sleep(3 * linger) // for what is said last
	if all := w.neighbours(); slices.Contains(all, vip4) || slices.Contains(all, vip6) {
		t.Errorf("the kernel has looked for the VIP on the link; its neighbours are %v", all)
	}
	// On a busy machine the kernel says the last of some connections late.
	if s := n.Stats(); s.Sent < 10*s.Stray || s.Unfit != 0 || s.NotSent != 0 {
		t.Errorf("got %+v, want next to nothing but sent packets", s)
	}
}

// The pings of one way must be answered by its backend and by no other: with
// the VIP taken from one of them, that one is silent.
func TestMissingVIP(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	for _, b := range w.backends {
		w.decapsulate(b)
	}
	for _, vip := range vips {
		w.must(w.backends[0].host.UnserveVIP(vip))
	}
	ways := map[string]Way{}
	for i, b := range w.backends {
		ways[fmt.Sprint("dsr ", i)], ways[fmt.Sprint("ipip ", i)] = w.dsr(b), w.ipip(b, false)
	}
	n.SetWays(ways)
	var all sync.WaitGroup
	for way := range ways {
		for _, vip := range vips {
			all.Go(func() {
				missing := strings.HasSuffix(way, "0")
				within := patience
				if missing {
					within = brief
				}
				_, dialErr := w.ask(n, "tcp", vip, way, within)
				pingErr := w.ping(n, vip, way, within)
				if (dialErr != nil) != missing || (pingErr != nil) != missing {
					t.Errorf("%s to %s: tcp %v, ping %v", way, vip, dialErr, pingErr)
				}
				if errors.Is(dialErr, health.ErrUnable) || errors.Is(pingErr, health.ErrUnable) {
					t.Errorf("%s to %s: the backend's fault is not said to be its: tcp %v, ping %v", way, vip, dialErr, pingErr)
				}
			})
		}
	}
	all.Wait()
}

func TestNotDecapsulated(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"4": w.ipip(w.backends[0], false), "6": w.ipip(w.backends[0], true)})
	for _, way := range []string{"4", "6"} {
		for _, vip := range vips {
			if got, err := w.ask(n, "tcp", vip, way, brief); err == nil {
				t.Errorf("over IPv%s to %s: answered by %q", way, vip, got)
			}
		}
	}
}

func TestUnable(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	only4 := w.dsr(w.backends[0])
	only4.Has6, only4.IPv6 = false, rewrite.Rewrite{}
	n.SetWays(map[string]Way{
		"only 4": only4, "b1": w.dsr(w.backends[0]),
		"no way": {Reason: "its next hop is not known yet"},
	})
	w.must(w.box.DelAddr("eth0", box6))
	for _, test := range []struct{ way, says string }{
		{"nobody", "no way to the backend is known yet"},
		{"no way", "its next hop is not known yet"},
		{"only 4", "takes no IPv6"},
		{"b1", "this box has no IPv6 address on eth0, so the IPv6 VIP cannot be checked through its backends; give it one, or set check_address: backend"},
	} {
		_, err := w.ask(n, "tcp", vip6, test.way, patience)
		if !errors.Is(err, health.ErrUnable) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("dial by %q: %v", test.way, err)
		}
		err = w.ping(n, vip6, test.way, patience)
		if !errors.Is(err, health.ErrUnable) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("ping by %q: %v", test.way, err)
		}
	}
	w.must(w.box.AddAddr("eth0", box6))
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // it is tentative at first
		got, err := w.ask(n, "tcp", vip6, "b1", patience)
		if got == "b1" {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("with an address again: answered by %q, error %v", got, err)
		}
	}
}

func TestChangeWays(t *testing.T) {
	n := &Network{}
	reason := func(key string) string {
		if w := n.wayOf(key); w != nil {
			return w.Reason
		}
		return "none"
	}
	n.SetWays(map[string]Way{"a": {Reason: "1"}, "b": {Reason: "1"}, "c": {Reason: "1"}})
	held := n.wayOf("a")
	n.ChangeWays(map[string]Way{"a": {Reason: "2"}, "d": {Reason: "2"}}, []string{"b", "e"})
	if got := reason("a") + reason("b") + reason("c") + reason("d"); got != "2none12" {
		t.Errorf("ways are %s", got)
	}
	if held.Reason != "1" {
		t.Error("a way that a connection goes by was changed")
	}
	n.SetWays(nil)
	if got := reason("a") + reason("c"); got != "nonenone" {
		t.Errorf("ways are %s", got)
	}
}

// A backend that does not answer on the link is down, not unknown.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": {Reason: "10.0.0.11 does not answer ARP on eth0", Unreachable: true}})
	for _, vip := range vips {
		_, dialErr := w.ask(n, "tcp", vip, "b1", patience)
		for _, err := range []error{dialErr, w.ping(n, vip, "b1", patience)} {
			if err == nil || errors.Is(err, health.ErrUnable) || !strings.Contains(err.Error(), "does not answer ARP on eth0") {
				t.Errorf("got %v, want a failure of the backend's", err)
			}
		}
	}
}

// With strict filtering and the way back elsewhere, the kernel drops the answers.
// That is no fault of the backend.
func TestReversePathFilter(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	other, err := w.lab.Host("other")
	w.must(err)
	w.must(w.box.ConnectTo(other, iface("eth1", "10.9.0.1/24"), iface("eth0", "10.9.0.2/24")))
	w.must(w.box.AddRoute(netip.PrefixFrom(vip4, 32), netip.MustParseAddr("10.9.0.2")))
	for _, test := range []struct {
		filter string
		takes  bool
	}{{"2", true}, {"1", false}, {"0", true}} {
		w.must(w.box.Sysctl("net.ipv4.conf.eth0.rp_filter", test.filter))
		n.sources.mu.Lock()
		clear(n.sources.verdicts)
		n.sources.mu.Unlock()
		within := patience
		if !test.takes {
			within = brief
		}
		got, err := w.ask(n, "tcp", vip4, "b1", within)
		if test.takes && (got != "b1" || err != nil) {
			t.Errorf("rp_filter %s: answered by %q, error %v", test.filter, got, err)
		}
		if !test.takes && (!errors.Is(err, health.ErrUnable) || !strings.Contains(err.Error(), "sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.eth0.rp_filter=2")) {
			t.Errorf("rp_filter %s: got %q, error %v", test.filter, got, err)
		}
		if !test.takes {
			err = w.ping(n, vip4, "b1", within)
			if !errors.Is(err, health.ErrUnable) || !strings.Contains(err.Error(), "rp_filter of eth0 is strict") {
				t.Errorf("rp_filter %s: ping: %v", test.filter, err)
			}
		}
	}
}

// Many at once, to both backends, from few ports: each answer has to be of the
// backend that was asked, and no connection may be left on a backend.
func TestConcurrently(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0]), "b2": w.dsr(w.backends[1])})
	w.must(w.box.Sysctl("net.ipv4.ip_local_port_range", "40000 40300"))
	const workers, each = 16, 60
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			way, vip := fmt.Sprintf("b%d", i%2+1), vips[i/2%2]
			for range each {
				got, err := w.ask(n, "tcp", vip, way, patience)
				for errors.Is(err, unix.EADDRINUSE) { // all ports linger
					time.Sleep(linger)
					got, err = w.ask(n, "tcp", vip, way, patience)
				}
				if got != way || err != nil {
					t.Errorf("%s by %s: answered by %q, error %v", vip, way, got, err)
					return
				}
			}
		})
	}
	all.Wait()
	deadline := time.Now().Add(patience)
	for w.backends[0].resets.Load()+w.backends[1].resets.Load() < workers*each {
		if time.Now().After(deadline) {
			t.Fatalf("of %d connections %d and %d were reset on the backends",
				workers*each, w.backends[0].resets.Load(), w.backends[1].resets.Load())
		}
		time.Sleep(5 * time.Millisecond)
	}
	for !n.flows.isEmpty() {
		if time.Now().After(deadline) {
			t.Fatal("flows are left")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestInterfaceComesBack(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	// An address that is there whatever becomes of the interface.
	source := netip.MustParsePrefix("10.0.0.3/32")
	w.must(w.box.AddAddr("lo", source))
	way := w.dsr(w.backends[0])
	way.Source4 = source.Addr()
	n.SetWays(map[string]Way{"b1": way})
	if got, err := w.ask(n, "udp", vip4, "b1", patience); got != "b1" {
		t.Fatalf("answered by %q, error %v", got, err)
	}
	w.must(w.box.LinkDown("eth0"))
	if _, err := w.ask(n, "udp", vip4, "b1", brief); err == nil {
		t.Error("answered with the link down")
	}
	w.must(w.box.LinkUp("eth0"))
	if got, err := w.ask(n, "udp", vip4, "b1", patience); got != "b1" {
		t.Errorf("link up again: answered by %q, error %v", got, err)
	}
	w.ip("link delete eth0")
	if _, err := w.ask(n, "udp", vip4, "b1", brief); err == nil {
		t.Error("answered without an interface")
	}
	again := iface("eth0", box4.String(), box6.String())
	again.MAC = w.link.MAC
	_, err := w.box.Connect(w.net, again)
	w.must(err)
	deadline := time.Now().Add(patience)
	for {
		got, err := w.ask(n, "udp", vip4, "b1", patience)
		if got == "b1" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("interface made again: answered by %q, error %v", got, err)
		}
	}
	if s := n.Stats(); s.NotSent == 0 || s.LastError == "" {
		t.Errorf("got %+v, want packets that were not sent", s)
	}
}

// What is neither a known socket's nor in order goes nowhere.
func TestStray(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	var fd int
	w.must(w.box.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := n.Options(fd, "b1", netip.AddrPortFrom(vip4, port)); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: port, Addr: vip4.As4()})
	}))
	defer unix.Close(fd)
	deadline := time.Now().Add(patience)
	for n.Stats().Stray != 1 {
		if time.Now().After(deadline) {
			t.Fatalf("got %+v, want one stray packet", n.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	if s := n.Stats(); s.Sent != 0 {
		t.Errorf("got %+v, want nothing sent", s)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	w := newWorld(t)
	var n *Network
	w.must(w.box.Do(func() (err error) { n, err = Open(discard()); return err }))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := n.Run(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
}
