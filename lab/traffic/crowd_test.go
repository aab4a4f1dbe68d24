package traffic

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// crowd opens streams to a server on loopback.
func crowd(t *testing.T, config CrowdConfig) *Crowd {
	t.Helper()
	s := serve(t, ServerConfig{Name: "web1", Streams: addrPorts("127.0.0.1:0")})
	config.Target = s.Streams()[0]
	c, err := OpenCrowd(t.Context(), config)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func TestCrowd(t *testing.T) {
	c := crowd(t, CrowdConfig{Clients: []*Client{&patient, {Timeout: time.Minute}}, Streams: 100, AtOnce: 4})
	locals := make(map[netip.AddrPort]bool)
	for _, s := range c.Streams() {
		if s.Backend != "web1" || s.Client != s.Local() {
			t.Errorf("stream of %s: %q says that it is of %s", s.Local(), s.Backend, s.Client)
		}
		locals[s.Local()] = true
	}
	if len(locals) != 100 {
		t.Errorf("%d connections, want 100", len(locals))
	}
	for _, n := range []int{0, 1, 5000} { // shorter and longer than the server reads at once
		check(t, c.Echo(t.Context(), make([]byte, n)))
	}
	if r := c.Streams()[7].Echo(t.Context(), []byte("abc")); r.Err != nil || r.Bytes != 6 || r.Backend != "web1" || r.Local != c.Streams()[7].Local() {
		t.Error(r)
	}
}

func TestCrowdFails(t *testing.T) {
	target := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), unused(t))
	if _, err := OpenCrowd(t.Context(), CrowdConfig{Clients: []*Client{&patient}, Target: target, Streams: 3}); err == nil {
		t.Error("opened where nobody listens")
	}
	web := onLoopback(t, "web1") // does not greet
	client := &Client{Timeout: 50 * time.Millisecond}
	if _, err := client.OpenStream(t.Context(), web.TCP()[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no greeting: %v", err)
	}
	c := crowd(t, CrowdConfig{Clients: []*Client{&patient}, Streams: 3})
	c.Streams()[1].conn = &faultyConn{Conn: c.Streams()[1].conn, fault: func(net.Conn, []byte) (int, error) { return 0, io.EOF }}
	if err := c.Echo(t.Context(), []byte("x")); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that hears nothing: %v", err)
	}
}

// TestPulse checks that the worst echo of each stream is found.
func TestPulse(t *testing.T) {
	c := crowd(t, CrowdConfig{Clients: []*Client{&patient}, Streams: 3})
	const slow = 150 * time.Millisecond
	for i, fault := range map[int]func(net.Conn, []byte) (int, error){
		1: func(c net.Conn, b []byte) (int, error) { time.Sleep(slow); return c.Read(b) },
		2: reset,
	} {
		c.Streams()[i].conn = &faultyConn{Conn: c.Streams()[i].conn, left: 30, fault: fault} // the third echo
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	worst := c.Pulse(ctx, 5*time.Millisecond, []byte("pulse"))
	if worst[0].Err != nil || worst[0].Bytes != 10 {
		t.Error(worst[0])
	}
	if worst[1].Err != nil || worst[1].Duration < slow {
		t.Errorf("a pause of %v is not found: %v", slow, worst[1])
	}
	if !errors.Is(worst[2].Err, syscall.ECONNRESET) {
		t.Errorf("a failure is not found: %v", worst[2])
	}
}
