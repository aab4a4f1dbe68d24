package nexthop

import (
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// BenchmarkPass measures a pass over 5,000 backends on the link, each with its
// own neighbour entry: one that asks for every route, and one after a change
// of a neighbour.
func BenchmarkPass(b *testing.B) {
	const backends = 5000
	k := newFake()
	s := newState(slog.New(slog.DiscardHandler))
	var addrs []netip.Addr
	addr := netip.MustParseAddr("10.1.0.1")
	for range backends {
		addrs = append(addrs, addr)
		addr = addr.Next()
	}
	k.routes = map[netip.Prefix]route{netip.MustParsePrefix("10.1.0.0/16"): {kind: unix.RTN_UNICAST, ifindex: 3}}
	s.setTargets(addrs)
	for _, name := range []string{"ask all", "neighbour"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if name == "ask all" {
					s.askAll()
				}
				k.lookups = k.lookups[:0]
				if _, err := s.pass(k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPolling measures what it costs to poll 5,000 backends, per second:
// the CPU time of the process. As the other end of a veth is worked on by who
// sends, that includes the server's.
func BenchmarkPolling(b *testing.B) {
	const backends = 5000
	labtest.NeedRoot(b)
	const limit = "/proc/sys/net/ipv4/neigh/default/gc_thresh3"
	text, err := os.ReadFile(limit)
	if entries, _ := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || entries < 2*backends {
		b.Skipf("wants %s to be at least %d, it is %s", limit, 2*backends, text)
	}
	weir, server := newHost(b), newHost(b)
	cablePatient(weir, server, "eth1", "srv1", []string{"10.1.255.254/16"}, []string{"10.1.255.253/16"})
	server.route("10.1.0.0/17", "lo", func(r *netlink.Route) {
		r.Type, r.Table, r.Scope = unix.RTN_LOCAL, unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST
	})
	var addrs []string
	for addr := netip.MustParseAddr("10.1.0.1"); len(addrs) < backends; addr = addr.Next() {
		addrs = append(addrs, addr.String())
	}
	tr := weir.track(addrs...)
	for _, addr := range addrs {
		await(b, tr, addr, "resolve", isResolved)
	}
	cpu := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	sent := func() uint64 { return weir.link("eth1").Attrs().Statistics.TxPackets }
	time.Sleep(beat)
	before, framesBefore := cpu(), sent()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	b.ReportMetric(float64(cpu()-before)/1e6/float64(b.N), "cpu-ms/s")
	b.ReportMetric(float64(sent()-framesBefore)/float64(b.N), "frames/s")
}

// BenchmarkKernelRoute measures one lookup in the real kernel.
func BenchmarkKernelRoute(b *testing.B) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	k := &rtnetlink{requests: h}
	for b.Loop() {
		if _, err := k.Route(netip.MustParseAddr("127.0.0.1")); err != nil {
			b.Fatal(err)
		}
	}
}
