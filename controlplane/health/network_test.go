package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
	"weir/lab/labtest"
)

func TestDial(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			l, at := listen(t, addr)
			conn, err := NewKernel(nil).DialContext(t.Context(), "tcp", at, "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			peer, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			if conn.RemoteAddr().String() != at.String() || conn.LocalAddr().String() != peer.RemoteAddr().String() {
				t.Errorf("from %v to %v, want from %v to %v", conn.LocalAddr(), conn.RemoteAddr(), peer.RemoteAddr(), at)
			}
			if _, err := conn.Write([]byte("question")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 16)
			if n, err := peer.Read(buf); string(buf[:n]) != "question" {
				t.Errorf("received %q, %v", buf[:n], err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(-time.Second))
			if _, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read after the deadline: %v", err)
			}
			if err := errors.Join(conn.Close(), peer.Close()); err != nil {
				t.Error(err)
			}
			if conn.Close() == nil {
				t.Error("a second Close does not say so")
			}
		})
	}
}

func TestDialFails(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	here := netip.MustParseAddrPort("127.0.0.1:1")
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		network string
		to      netip.AddrPort
		way     string
		want    error
	}{
		{"refused", t.Context(), "tcp", here, "", unix.ECONNREFUSED},
		{"ended", ended, "tcp", here, "", context.Canceled},
		{"network", t.Context(), "sctp", here, "", net.UnknownNetworkError("sctp")},
		{"way", t.Context(), "tcp", here, "elsewhere", ErrUnable},
		{"no interface", t.Context(), "tcp", netip.MustParseAddrPort("[fe80::1%weir-none]:1"), "", ErrUnable},
		{"no address", t.Context(), "tcp", netip.AddrPort{}, "", errNoAddress},
	} {
		if conn, err := NewKernel(nil).DialContext(tt.ctx, tt.network, tt.to, tt.way); conn != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// full returns the address of a listener that answers no more SYNs.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := addrPort(name)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		conn, err := NewKernel(nil).DialContext(ctx, "tcp", at, "")
		cancel()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return at
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

func TestDialEndsWithContext(t *testing.T) {
	at := full(t)
	if err := try(t, Check{Targets: []netip.AddrPort{at}}, 100*time.Millisecond); err != noAnswer(100*time.Millisecond) {
		t.Errorf("timeout: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if conn, err := NewKernel(nil).DialContext(ctx, "tcp", at, ""); conn != nil || err == nil {
		t.Errorf("cancelled: got %v, %v", conn, err)
	}
}

// steering notes what it is asked, and steers to 127.0.0.2 or ::1.
type steering struct {
	mu       sync.Mutex
	calls    []string
	flows    []Flow
	released int
	refuse   error
}

func (s *steering) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *steering) Options(fd int, _ string, _ netip.AddrPort) error {
	s.note("options")
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 1)
}

func (s *steering) Source(way string, to netip.Addr) (netip.Addr, error) {
	s.note("source " + way)
	if to.Is6() {
		return netip.IPv6Loopback(), nil
	}
	return netip.MustParseAddr("127.0.0.2"), nil
}

func (s *steering) Register(way string, flow Flow) (func(), error) {
	s.note("register " + way)
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flows = append(s.flows, flow)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.released++
	}, nil
}

func TestSteering(t *testing.T) {
	l, at := listen(t, "127.0.0.1")
	s := &steering{}
	conn, err := NewKernel(s).DialContext(t.Context(), "tcp", at, "w")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if want := []string{"source w", "options", "register w"}; !slices.Equal(s.calls, want) {
		t.Errorf("calls: got %q, want %q", s.calls, want)
	}
	if want := (Flow{packet.ProtoTCP, netip.MustParseAddrPort(peer.RemoteAddr().String()), at}); len(s.flows) != 1 || s.flows[0] != want || want.Local.Addr() != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("flows: got %v, want %v", s.flows, want)
	}
	if s.released != 0 {
		t.Error("released while it is used")
	}
	_, _ = conn.Close(), conn.Close()
	if s.released != 1 {
		t.Errorf("released %d times, want once", s.released)
	}

	s.refuse = fmt.Errorf("full: %w", ErrUnable)
	if conn, err := NewKernel(s).DialContext(t.Context(), "udp", at, "w"); conn != nil || !errors.Is(err, ErrUnable) {
		t.Errorf("refused: got %v, %v", conn, err)
	}
	s.refuse = nil
	_ = l.Close()
	if _, err := NewKernel(s).DialContext(t.Context(), "tcp", at, "w"); !errors.Is(err, unix.ECONNREFUSED) || s.released != 2 {
		t.Errorf("a failed connection: %v, released %d times", err, s.released)
	}
}

func TestPing(t *testing.T) {
	labtest.NeedRoot(t)
	s := &steering{}
	for _, k := range []*Kernel{NewKernel(nil), NewKernel(s)} {
		for _, to := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"} {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					if err := k.Ping(ctx, netip.MustParseAddr(to), ""); err != nil {
						t.Errorf("%s: %v", to, err)
					}
				})
			}
			all.Wait()
		}
		if err := errors.Join(k.Close(), k.Close()); err != nil {
			t.Error(err)
		}
		if err := k.Ping(t.Context(), netip.IPv6Loopback(), ""); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	options := 0
	for _, call := range s.calls {
		if call == "options" {
			options++
		}
	}
	if options != 2 || len(s.flows) != 200 || s.released != 200 {
		t.Errorf("%d sockets, %d requests, %d released; want 2, 200, 200", options, len(s.flows), s.released)
	}
	for _, flow := range s.flows {
		source, protocol := netip.MustParseAddr("127.0.0.2"), packet.ProtoICMPv4
		if flow.Remote.Addr().Is6() {
			source, protocol = netip.IPv6Loopback(), packet.ProtoICMPv6
		}
		if flow.Local.Addr() != source || flow.Protocol != protocol || flow.Remote.Port() != 0 {
			t.Fatalf("flow: got %+v", flow)
		}
	}
}

// A namespace whose kernel answers no pings.
func TestPingWithoutAnswer(t *testing.T) {
	labtest.NeedRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = errors.Join(netlink.LinkSetUp(lo), os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte("1"), 0))
		}
		if err != nil {
			t.Error(err)
			return
		}
		k := NewKernel(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := k.Ping(ctx, netip.MustParseAddr("127.0.0.1"), ""); err != context.DeadlineExceeded {
			t.Errorf("no answer: got %v", err)
		}
		if len(k.pings[0].waiting) != 0 {
			t.Error("the request is still waited for")
		}
		if err := k.Ping(t.Context(), netip.MustParseAddr("192.0.2.1"), ""); !errors.Is(err, unix.ENETUNREACH) || ours(err) {
			t.Errorf("no route: got %v", err)
		}
		time.AfterFunc(50*time.Millisecond, func() { _ = k.Close() })
		if err := k.Ping(t.Context(), netip.MustParseAddr("127.0.0.1"), ""); !ours(err) {
			t.Errorf("closed meanwhile: got %v", err)
		}
	}()
	<-done
}

// A box with no port left says so, and blames nobody: a socket that is steered has
// its port before it connects.
func TestNoPortIsLeft(t *testing.T) {
	labtest.NeedRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = errors.Join(netlink.LinkSetUp(lo), os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0))
		}
		if err != nil {
			t.Error(err)
			return
		}
		_, at := listen(t, "127.0.0.1")
		k := NewKernel(&steering{})
		for _, network := range []string{"udp", "tcp"} {
			for i := range 3 {
				c, err := k.DialContext(t.Context(), network, at, "w")
				if i < 2 && err != nil {
					t.Errorf("%s: connection %d: %v", network, i+1, err)
				}
				if err == nil {
					defer c.Close()
				} else if i == 2 && (!errors.Is(err, unix.EADDRINUSE) || !ours(err) || !strings.Contains(err.Error(), "ip_local_port_range")) {
					t.Errorf("%s: got %v, want that no port is left", network, err)
				}
				if i == 2 && err == nil {
					t.Errorf("%s: a third connection has a port", network)
				}
			}
		}
	}()
	<-done
}

func TestPingUnprivileged(t *testing.T) {
	p := &pinger{family: family4, options: func(int) error { return unix.EPERM }}
	err := p.ping(t.Context(), netip.MustParseAddr("127.0.0.1"), netip.Addr{}, func(netip.AddrPort) (func(), error) { return nil, nil })
	if !errors.Is(err, ErrUnable) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("got %v", err)
	}
}

// A checker that was given no network closes its own.
func TestCheckerPings(t *testing.T) {
	labtest.NeedRoot(t)
	c := New(discard, nil)
	c.SetChecks([]Check{{ID: "a", Targets: targets("127.0.0.1:0", "[::1]:0"), Probe: ICMP{}, Timeout: time.Minute}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	<-c.Changes()
	if got := c.Results()["a"]; got.State != Up {
		t.Errorf("got %+v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c.own.pings[0].socket != nil || c.own.pings[1].socket != nil {
		t.Error("the sockets are still open")
	}
}

// Each way in which an answer may be somebody else's.
func TestPingTakes(t *testing.T) {
	backend := netip.MustParseAddr("192.0.2.1")
	reply := func(change func(m []byte)) []byte {
		m := (&echo{sequence: 7, payload: [echoPayload]byte{1, 2, 3}}).message(packet.ICMPv4EchoReply, 500)
		change(m)
		return m
	}
	for _, tt := range []struct {
		name    string
		message []byte
		from    netip.Addr
		want    bool
	}{
		{"answer", reply(func([]byte) {}), backend, true},
		{"type", reply(func(m []byte) { m[0] = 8 }), backend, false},
		{"code", reply(func(m []byte) { m[1] = 1 }), backend, false},
		{"identifier", reply(func(m []byte) { m[5]++ }), backend, false},
		{"sequence", reply(func(m []byte) { m[7]++ }), backend, false},
		{"payload", reply(func(m []byte) { m[echoHeader+echoPayload-1]++ }), backend, false},
		{"address", reply(func([]byte) {}), backend.Next(), false},
		{"short", reply(func([]byte) {})[:echoHeader+echoPayload-1], backend, false},
		{"long", append(reply(func([]byte) {}), 0), backend, false},
		{"no payload", reply(func([]byte) {})[:echoHeader], backend, false},
		{"nothing", nil, backend, false},
	} {
		e := &echo{to: backend, sequence: 7, payload: [echoPayload]byte{1, 2, 3}, answered: make(chan error, 1)}
		p := &pinger{family: family4, waiting: map[uint16]*echo{500: e}}
		for range 2 { // the second is a duplicate
			p.take(tt.message, tt.from)
		}
		if got := len(e.answered) == 1; got != tt.want || got != (len(p.waiting) == 0) {
			t.Errorf("%s: taken %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestPingIdentifiersDiffer(t *testing.T) {
	p := &pinger{family: family4, socket: new(net.IPConn), waiting: map[uint16]*echo{}, last: 65000}
	seen := map[uint16]bool{}
	for range 1 << 16 {
		_, id, err := p.enter(&echo{})
		if err != nil || seen[id] {
			t.Fatalf("%d: %v", id, err)
		}
		seen[id] = true
	}
	if _, _, err := p.enter(&echo{}); !errors.Is(err, ErrUnable) {
		t.Errorf("one more: got %v", err)
	}
	p.leave(77)
	if _, id, err := p.enter(&echo{}); err != nil || id != 77 {
		t.Errorf("after one has left: got %d, %v", id, err)
	}
}

func FuzzPing(f *testing.F) {
	f.Add((&echo{sequence: 7}).message(0, 500))
	f.Add((&echo{sequence: 7}).message(0, 501))
	f.Add([]byte{0, 0, 0, 0, 1, 244, 0}) // one byte short of a header
	f.Fuzz(func(t *testing.T, message []byte) {
		e := &echo{to: one, sequence: 7, answered: make(chan error, 1)}
		p := &pinger{family: family4, waiting: map[uint16]*echo{500: e}}
		p.take(message, one)
		good := e.message(0, 500)
		copy(good[2:4], message[min(2, len(message)):]) // the kernel has looked at the checksum
		if taken := len(e.answered) == 1; taken != (string(good) == string(message)) {
			t.Errorf("taken: %v", taken)
		}
	})
}
