package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestBlock loses one port on the cable of one host, in both directions, and
// finds again what was not meant.
func TestBlock(t *testing.T) {
	const port, other = 7946, 7947
	lab := newLab(t)
	sw := must(lab.Switch("sw"))(t)
	a, b := must(lab.Host("a"))(t), must(lab.Host("b"))(t)
	must(a.Connect(sw, Iface{Name: "eth0", Addrs: prefixes("10.9.0.1/24", "fd09::1/64")}))(t)
	must(b.Connect(sw, Iface{Name: "eth0", Addrs: prefixes("10.9.0.2/24", "fd09::2/64")}))(t)
	type way struct {
		from, to *Host
		addr     string // of to
	}
	ways := []way{{a, b, "10.9.0.2"}, {b, a, "10.9.0.1"}, {a, b, "fd09::2"}, {b, a, "fd09::1"}}
	// arrives says whether a datagram of w gets from one port to another.
	arrives := func(w way, source, target uint16) bool {
		to := netip.AddrPortFrom(netip.MustParseAddr(w.addr), target)
		listener := must(w.to.ListenPacket(t.Context(), "udp", to.String()))(t)
		defer listener.Close()
		local := netip.IPv4Unspecified()
		if to.Addr().Is6() {
			local = netip.IPv6Unspecified()
		}
		c := must(w.from.DialFrom(netip.AddrPortFrom(local, source))(t.Context(), "udp", to.String()))(t)
		defer c.Close()
		for range 3 { // address resolution may lose one
			must(c.Write([]byte("hello")))(t)
			check(t, listener.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
			if _, _, err := listener.ReadFrom(make([]byte, 16)); err == nil {
				return true
			}
		}
		return false
	}
	connects := func(w way, target uint16) bool {
		to := netip.AddrPortFrom(netip.MustParseAddr(w.addr), target)
		listener := must(w.to.Listen(t.Context(), "tcp", to.String()))(t)
		defer listener.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		c, err := w.from.DialContext(ctx, "tcp", to.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	expect := func(when string, w way, want bool) {
		t.Helper()
		for what, got := range map[string]bool{
			fmt.Sprintf("udp to port %d", port):   arrives(w, other, port),
			fmt.Sprintf("udp from port %d", port): arrives(w, port, other),
			fmt.Sprintf("tcp to port %d", port):   connects(w, port),
		} {
			if got != want {
				t.Errorf("%s: %s of %s passes: %v, want %v", when, what, w.addr, got, want)
			}
		}
		if !arrives(w, other, other+1) || !connects(w, other) {
			t.Errorf("%s: other ports of %s do not pass", when, w.addr)
		}
	}
	for _, w := range ways {
		expect("before", w, true)
	}
	unblock := must(sw.Block(a, "eth0", port))(t)
	for _, w := range ways {
		expect("blocked", w, false)
	}
	reach(t, a, "10.9.0.2")
	check(t, unblock())
	for _, w := range ways {
		expect("unblocked", w, true)
	}
	check(t, unblock()) // twice
}
