package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/lab/labtest"
)

func newLab(t *testing.T) *Lab {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := New("test")
	check(t, err)
	t.Cleanup(func() { check(t, lab.Close()) })
	return lab
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// pair returns two hosts on one switch: 10.9.0.1 and .2, fd09::1 and ::2.
func pair(t *testing.T, lab *Lab) (a, b *Host) {
	t.Helper()
	sw := must(lab.Switch("sw"))(t)
	a, b = must(lab.Host("a"))(t), must(lab.Host("b"))(t)
	must(a.Connect(sw, Iface{Name: "eth0", Addrs: prefixes("10.9.0.1/24", "fd09::1/64")}))(t)
	must(b.Connect(sw, Iface{Name: "eth0", Addrs: prefixes("10.9.0.2/24", "fd09::2/64")}))(t)
	return a, b
}

// ping tries once, and briefly: most of its callers want it to fail.
func ping(h *Host, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	return h.Ping(ctx, netip.MustParseAddr(address))
}

// reach pings until there is a reply. One request may get none even over a good
// link, when address resolution had failed just before.
func reach(t *testing.T, h *Host, address string) {
	t.Helper()
	eventually(t, h.Name()+" reaches "+address, func() bool { return ping(h, address) == nil })
}

// exchange sends a line from one host to a listener of the other and back.
func exchange(t *testing.T, from, to *Host, network, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var answer func() error
	switch network {
	case "tcp":
		l := must(to.Listen(ctx, network, address))(t)
		defer l.Close()
		address = l.Addr().String()
		answer = func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.Copy(c, c)
			return err
		}
	case "udp":
		c := must(to.ListenPacket(ctx, network, address))(t)
		defer c.Close()
		address = c.LocalAddr().String()
		answer = func() error {
			buf := make([]byte, 100)
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			_, err = c.WriteTo(buf[:n], from)
			return err
		}
	}
	answered := make(chan error, 1)
	go func() { answered <- answer() }()

	c := must(from.DialContext(ctx, network, address))(t)
	defer c.Close()
	deadline, _ := ctx.Deadline()
	check(t, c.SetDeadline(deadline))
	must(c.Write([]byte("hello\n")))(t)
	line := must(bufio.NewReader(c).ReadString('\n'))(t)
	if line != "hello\n" {
		t.Errorf("%s %s: got %q back", network, address, line)
	}
	c.Close()
	if err := <-answered; err != nil {
		t.Errorf("%s %s: listener: %v", network, address, err)
	}
}

func TestExchange(t *testing.T) {
	a, b := pair(t, newLab(t))
	reach(t, a, "10.9.0.2")
	reach(t, b, "fd09::1")
	if ping(a, "10.9.0.3") == nil {
		t.Error("ping of an address nobody has succeeded")
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range []string{"10.9.0.2:0", "[fd09::2]:0"} {
			exchange(t, a, b, network, address)
		}
	}
}

func TestSocketsStayInTheirNamespace(t *testing.T) {
	a, b := pair(t, newLab(t))
	ctx := context.Background()
	// One address and port can be listened on once in each namespace.
	inside := must(b.Listen(ctx, "tcp", "127.0.0.1:0"))(t)
	defer inside.Close()
	outside, err := net.Listen("tcp", inside.Addr().String())
	if err != nil {
		t.Errorf("the lab's listener is outside: %v", err)
	} else {
		outside.Close()
	}
	if again, err := b.Listen(ctx, "tcp", inside.Addr().String()); err == nil {
		again.Close()
		t.Error("the lab's listener is not inside")
	}

	l := must(b.Listen(ctx, "tcp", "10.9.0.2:80"))(t)
	defer l.Close()
	dial := a.DialFrom(netip.MustParseAddrPort("10.9.0.1:4242"))
	c := must(dial(ctx, "tcp", "10.9.0.2:80"))(t)
	defer c.Close()
	if got := c.LocalAddr().String(); got != "10.9.0.1:4242" {
		t.Errorf("connected from %s", got)
	}
	if _, err := a.DialContext(ctx, "tcp", "localhost:80"); err == nil || !strings.Contains(err.Error(), "literal") {
		t.Errorf("dial by name: %v", err)
	}
}

// More connections at once than the machine has threads for goroutines.
func TestManyDials(t *testing.T) {
	a, b := pair(t, newLab(t))
	ctx := context.Background()
	l := must(b.Listen(ctx, "tcp", "10.9.0.2:80"))(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	defer l.Close()
	const n = 200
	errs := make(chan error, n)
	for i := range n {
		go func() {
			errs <- func() error {
				c, err := a.DialContext(ctx, "tcp", "10.9.0.2:80")
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
					return err
				}
				fmt.Fprintln(c, i)
				line, err := bufio.NewReader(c).ReadString('\n')
				if err == nil && line != fmt.Sprintln(i) {
					err = fmt.Errorf("connection %d got %q", i, line)
				}
				return err
			}()
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestMainThreadStaysOut(t *testing.T) {
	lab := newLab(t)
	before := must(os.Readlink("/proc/self/ns/net"))(t)
	h := must(lab.Host("h"))(t)
	for range 200 {
		var inside string
		check(t, h.Do(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}))
		if inside == before {
			t.Fatal("Do ran outside of the namespace")
		}
	}
	if after := must(os.Readlink("/proc/self/ns/net"))(t); after != before {
		t.Errorf("main thread moved from %s to %s", before, after)
	}
	eventually(t, "only the host's own thread is elsewhere", func() bool {
		elsewhere := 0
		for _, task := range must(filepath.Glob("/proc/self/task/*/ns/net"))(t) {
			if ns, err := os.Readlink(task); err == nil && ns != before {
				elsewhere++
			}
		}
		return elsewhere == 1
	})
}

func TestRouteThroughHost(t *testing.T) {
	lab := newLab(t)
	a, r, b := must(lab.Host("a"))(t), must(lab.Host("r"))(t), must(lab.Host("b"))(t)
	check(t, a.ConnectTo(r, Iface{Name: "eth0", Addrs: prefixes("10.1.0.1/24", "fd01::1/64")},
		Iface{Name: "eth0", Addrs: prefixes("10.1.0.254/24", "fd01::ff/64")}))
	check(t, b.ConnectTo(r, Iface{Name: "eth0", Addrs: prefixes("10.2.0.1/24", "fd02::1/64")},
		Iface{Name: "eth1", Addrs: prefixes("10.2.0.254/24", "fd02::ff/64")}))
	check(t, r.Sysctl("net.ipv4.ip_forward", "1"))
	check(t, r.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	check(t, b.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.2.0.254")))
	check(t, b.AddRoute(netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd02::ff")))
	routes := []struct {
		prefix netip.Prefix
		via    netip.Addr
		target string
	}{
		{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParseAddr("10.1.0.254"), "10.2.0.1"},
		{netip.MustParsePrefix("fd02::/64"), netip.MustParseAddr("fd01::ff"), "fd02::1"},
	}
	for _, route := range routes {
		check(t, a.AddRoute(route.prefix, route.via))
		check(t, a.AddRoute(route.prefix, route.via)) // replaces
		reach(t, a, route.target)
		check(t, a.DelRoute(route.prefix, route.via))
		if ping(a, route.target) == nil {
			t.Errorf("%s answers without a route", route.target)
		}
	}
}

func TestServeVIP(t *testing.T) {
	a, b := pair(t, newLab(t))
	for _, address := range []string{"10.9.0.99", "fd09::99"} {
		vip := netip.MustParseAddr(address)
		check(t, b.ServeVIP(vip))
		if ping(a, address) == nil {
			t.Errorf("%s: the host answers address resolution for a VIP it only serves", vip)
		}
		link := must(b.Link("eth0"))(t)
		check(t, a.AddNeigh(vip, link.MAC, "eth0")) // as a load balancer addresses the frame
		reach(t, a, address)
		exchange(t, a, b, "tcp", netip.AddrPortFrom(vip, 0).String())
		check(t, a.DelNeigh(vip, "eth0"))
		check(t, b.UnserveVIP(vip))
		if err := b.UnserveVIP(vip); err == nil {
			t.Errorf("%s: unserved twice", vip)
		}
	}
}

func TestErrorsNameHostAndOperation(t *testing.T) {
	lab := newLab(t)
	h := must(lab.Host("web-1"))(t)
	failing := errors.New("inner")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"do", h.Do(func() error { return failing }), "host web-1: do: inner"},
		{"link", h.LinkDown("eth7"), "host web-1: set eth7 down: Link not found"},
		{"sysctl", h.Sysctl("net.ipv4.nonsense", "1"), "host web-1: set: sysctl net.ipv4.nonsense=1"},
		{"sysctl outside net", h.Sysctl("kernel.domainname", "x"), "only net.* belongs to a namespace"},
		{"sysctl out of net", h.Sysctl("net/../kernel/domainname", "x"), "only net.* belongs to a namespace"},
		{"route", h.AddRoute(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("10.1.1.1")), "host web-1: add route 10.0.0.0/8 via 10.1.1.1: network is unreachable"},
		{"start", func() error { _, err := h.Start(exec.Command("/nonexistent/weir")); return err }(), "host web-1: start weir"},
		{"run", func() error {
			_, err := h.Run(t.Context(), "sh", "-c", "echo broken >&2; exit 3")
			return err
		}(), "host web-1: run sh: exit status 3: broken"},
		{"host name", func() error { _, err := lab.Host("Web 1"); return err }(), "new host Web 1: the name must match"},
		{"same name", func() error { _, err := lab.Host("web-1"); return err }(), "file exists"},
		{"lab name", func() error { _, err := New("a-b"); return err }(), "the name must match"},
		{"unplugged", h.Unplug("eth0"), "host web-1: unplug eth0: no cable there"},
	}
	for _, test := range tests {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: got %v, want ...%s...", test.name, test.err, test.want)
		}
	}
	if err := h.Do(func() error { return failing }); !errors.Is(err, failing) {
		t.Errorf("%v does not wrap its cause", err)
	}
	reach(t, h, "127.0.0.1") // the second web-1 did not remove the first
}

func TestOwnerOf(t *testing.T) {
	for name, want := range map[string]int{
		"weir-demo-4711-client":            4711,
		"weir-demo-4711-web-1":             4711,
		"weir-demo_2-1-h":                  1,
		"weir-demo-0-h":                    0,
		"weir-demo-007-h":                  0,
		"weir-demo-4711-":                  0,
		"weir-demo-4711":                   0,
		"weir-a-b-4711-h":                  0,
		"xweir-demo-4711-h":                0,
		"weir-demo--1-h":                   0,
		"weir-demo-99999999999999999999-h": 0,
	} {
		if pid, ok := ownerOf(name); pid != want && ok || ok != (want > 0) {
			t.Errorf("%s: pid %d, %v; want %d", name, pid, ok, want)
		}
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
