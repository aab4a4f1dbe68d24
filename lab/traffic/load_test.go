package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

func run(t *testing.T, ctx context.Context, r interface{ Run(context.Context) error }) (ended chan error) {
	t.Helper()
	ended = make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return ended
}

func TestLoadIntact(t *testing.T) {
	s := onLoopback(t, "web1")
	l := NewLoad(LoadConfig{Client: &patient, Target: s.TCP()[0], Connections: 50, Rate: 1 << 20})
	ended := run(t, t.Context(), l)
	<-l.Started()
	if r := l.Report(); r.Active != 50 || r.Backends["web1"] != 50 || r.Intact != 0 {
		t.Errorf("started: %+v", r)
	}
	l.Finish()
	l.Finish()
	check(t, <-ended)
	if r := l.Report(); r.Active != 0 || r.Intact != 50 || len(r.Broken) != 0 || r.Bytes < 50*2*2*16<<10 {
		t.Errorf("ended: %+v", r)
	}
}

func TestLoadReportsBroken(t *testing.T) {
	s := onLoopback(t, "web1")
	var b breaker
	l := NewLoad(LoadConfig{Client: &Client{Dial: b.dial}, Target: s.TCP()[0], Connections: 5, Rate: 1 << 20})
	ended := run(t, t.Context(), l)
	<-l.Started()
	b.broken.Store(true)
	err := <-ended // without Finish: nothing is left to run
	if !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), "5 of 5") {
		t.Error(err)
	}
	r := l.Report()
	if r.Active != 0 || r.Intact != 0 || len(r.Broken) != 5 {
		t.Fatalf("%+v", r)
	}
	for _, broken := range r.Broken {
		if broken.Backend != "web1" || !broken.Local.IsValid() || broken.Bytes == 0 {
			t.Error(broken)
		}
	}
}

// Connections whose packets vanish break too, and without a reset.
func TestLoadStall(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	l := NewLoad(LoadConfig{Client: &patient, Target: addrPort(silent.Addr()), Connections: 3, Stall: 20 * time.Millisecond})
	err = <-run(t, t.Context(), l)
	<-l.Started()
	if err == nil || !strings.Contains(err.Error(), "stalled") || len(l.Report().Broken) != 3 {
		t.Errorf("%v, %+v", err, l.Report())
	}
}

// A connection that another backend goes on with is broken however well formed
// its answers are.
func TestLoadNoticesAnotherBackend(t *testing.T) {
	one, two := onLoopback(t, "web1"), onLoopback(t, "web2")
	var moved atomic.Bool
	splice := func(ctx context.Context, network, _ string) (net.Conn, error) {
		a, err := new(net.Dialer).DialContext(ctx, network, one.TCP()[0].String())
		if err != nil {
			return nil, err
		}
		b, err := new(net.Dialer).DialContext(ctx, network, two.TCP()[0].String())
		return &splicedConn{Conn: a, other: b, moved: &moved}, err
	}
	l := NewLoad(LoadConfig{Client: &Client{Dial: splice}, Target: one.TCP()[0], Connections: 1, Rate: 1 << 20})
	ended := run(t, t.Context(), l)
	<-l.Started()
	moved.Store(true)
	if err := <-ended; !errors.Is(err, ErrMoved) {
		t.Error(err)
	}
}

// splicedConn changes over to another connection at the next request.
type splicedConn struct {
	net.Conn
	other net.Conn
	moved *atomic.Bool
}

func (c *splicedConn) Write(b []byte) (int, error) {
	if strings.HasPrefix(string(b), "GET ") && c.moved.Load() {
		c.Conn, c.other = c.other, c.Conn
		c.moved.Store(false)
	}
	return c.Conn.Write(b)
}

func (c *splicedConn) Close() error { return errors.Join(c.Conn.Close(), c.other.Close()) }

func TestLoadCancelled(t *testing.T) {
	s := onLoopback(t, "web1")
	ctx, cancel := context.WithCancel(t.Context())
	l := NewLoad(LoadConfig{Client: &patient, Target: s.TCP()[0], Connections: 5})
	ended := run(t, ctx, l)
	<-l.Started()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if r := l.Report(); r.Active != 0 || len(r.Broken) != 0 {
		t.Errorf("%+v", r)
	}
	if err := NewLoad(LoadConfig{}).Run(t.Context()); err == nil {
		t.Error("a load of no connections ran")
	}
}

func TestSteady(t *testing.T) {
	s := onLoopback(t, "web1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var b breaker
	client := Client{Dial: b.dial, Timeout: 30 * time.Second}
	seen := 0
	var steady *Steady
	steady = NewSteady(SteadyConfig{
		Interval: time.Millisecond,
		Request:  func(ctx context.Context) Result { return client.Fetch(ctx, s.TCP()[0], 100) },
		Each: func(r Result) {
			seen++
			if len(steady.Results()) < seen {
				t.Error("a result came before it was recorded")
			}
			b.broken.Store(seen >= 20)
			if seen == 40 {
				cancel()
			}
		},
	})
	check(t, steady.Run(ctx))
	results := steady.Results()
	sum := Summarize(results)
	if len(results) != seen || seen < 40 || sum.Requests != seen || sum.Failed == 0 || sum.Backends["web1"]+sum.Failed != seen {
		t.Errorf("%d results seen, %+v", seen, sum)
	}
	if NewSteady(SteadyConfig{}).Run(t.Context()) == nil {
		t.Error("ran without an interval")
	}
}

func TestSummarize(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms, took int, backend string) Result {
		r := Result{Start: start.Add(time.Duration(ms) * time.Millisecond), Duration: time.Duration(took) * time.Millisecond, Backend: backend}
		if backend == "" {
			r.Err = io.ErrUnexpectedEOF
		}
		return r
	}
	tests := []struct {
		name    string
		results []Result
		want    Summary
	}{
		{"nothing", nil, Summary{}},
		{"all well", []Result{at(0, 3, "a"), at(10, 5, "b"), at(20, 4, "a")},
			Summary{Requests: 3, Backends: map[string]int{"a": 2, "b": 1}, Slowest: 5 * time.Millisecond, Gap: 12 * time.Millisecond}},
		{"two gaps, any order", []Result{at(40, 9, ""), at(20, 1, ""), at(0, 1, "a"), at(10, 50, ""), at(30, 1, "b"), at(50, 1, "b")},
			Summary{Requests: 6, Failed: 3, Backends: map[string]int{"a": 1, "b": 2}, Slowest: time.Millisecond, Outage: 20 * time.Millisecond, Gap: 30 * time.Millisecond}},
		{"down to the end", []Result{at(0, 1, "a"), at(10, 1, ""), at(20, 7, "")},
			Summary{Requests: 3, Failed: 2, Backends: map[string]int{"a": 1}, Slowest: time.Millisecond, Outage: 17 * time.Millisecond}},
	}
	for _, test := range tests {
		got := Summarize(test.results)
		same := maps.Equal(got.Backends, test.want.Backends)
		got.Backends, test.want.Backends = nil, nil
		if !same || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// All of it between namespaces, with the server at a VIP of its own as behind a
// load balancer that returns directly.
func TestBetweenNamespaces(t *testing.T) {
	labtest.NeedRoot(t)
	lab, err := netlab.New("traffic")
	check(t, err)
	t.Cleanup(func() { check(t, lab.Close()) })
	sw, err := lab.Switch("sw")
	check(t, err)
	var hosts []*netlab.Host
	var links []netlab.Link
	for i, name := range []string{"client", "web"} {
		h, err := lab.Host(name)
		check(t, err)
		link, err := h.Connect(sw, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd09::%d/64", i+1))}})
		check(t, err)
		hosts, links = append(hosts, h), append(links, link)
	}
	host, web := hosts[0], hosts[1]
	vips := addrPorts("10.9.0.100:80", "[fd09::100]:80")
	for _, vip := range vips {
		check(t, web.ServeVIP(vip.Addr()))
		check(t, host.AddNeigh(vip.Addr(), links[1].MAC, "eth0"))
	}
	s := serve(t, ServerConfig{Name: "web", TCP: vips, UDP: vips, Listen: web.Listen, ListenPacket: web.ListenPacket})
	client := Client{Dial: host.DialContext, Timeout: 30 * time.Second}
	for i, vip := range vips {
		source := netip.MustParseAddr([]string{"10.9.0.1", "fd09::1"}[i])
		for _, r := range []Result{
			client.Fetch(t.Context(), vip, 1<<20),
			client.Upload(t.Context(), vip, 1<<20),
			client.Echo(t.Context(), vip, []byte("hello")),
			client.Echo(t.Context(), vip, make([]byte, 5000)), // in fragments
		} {
			if r.Err != nil || r.Backend != "web" || r.Local.Addr() != source {
				t.Errorf("%s; want web asked from %s", r, source)
			}
		}
		who, err := client.WhoAmI(t.Context(), vip)
		if err != nil || who.VIP != vip || who.Client.Addr() != source {
			t.Errorf("whoami %+v, %v", who, err)
		}
		l := NewLoad(LoadConfig{Client: &client, Target: vip, Connections: 200})
		ended := run(t, t.Context(), l)
		<-l.Started()
		l.Finish()
		if err := <-ended; err != nil || l.Report().Intact != 200 {
			t.Errorf("load: %v", err)
		}
	}
	if got := s.TCP(); got[0] != vips[0] || got[1] != vips[1] {
		t.Errorf("serves %v", got)
	}
}
