package sink

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/perf/generator"
)

// What a generator says that it has offered is what a sink says has arrived, and
// all of it is good.
func TestGenerated(t *testing.T) {
	near, far := newHosts(t, 0)
	link, err := near.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	// A veth takes redirected frames if the other end has GRO, or an XDP program.
	if _, err := far.Run(t.Context(), "ethtool", "-K", "eth0", "gro", "on"); err != nil {
		t.Fatal(err)
	}
	refused := uint64(0)
	for i, test := range []struct {
		hook Hook
		to   string
		opt  generator.Options
		kind Kind // of frames that are no new connections
	}{
		{TCX, "203.0.113.10:9", generator.Options{Zipf: 1, FrameLen: 1514}, Kind{}},
		{TCX, "[2001:db8::1]:9", generator.Options{SYN: true}, Kind{Family: IPv6, Protocol: Opening}},
		{XDP, "203.0.113.10:9", generator.Options{TCP: true, SYNShare: 0.1, FrameLen: 333}, Kind{Protocol: Segment}},
		{XDP, "[2001:db8::1]:9", generator.Options{TCP: true, SYNShare: 0.1, Batch: 4}, Kind{Family: IPv6, Protocol: Segment}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := openOn(t, far, Options{Hook: test.hook, Verify: true, Latency: true})
			defer closeSink(t, s)
			opt := test.opt
			opt.Interface, opt.Flows, opt.Stamp, opt.To = link.Index, 1000, true, netip.MustParseAddrPort(test.to)
			opt.Source, opt.Destination = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
			g, err := generator.New(opt)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			start := time.Now()
			go func() { ended <- near.Do(func() error { return g.Run(ctx) }) }()
			if err := g.SetRate(200_000); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool {
				sent, err := g.Sent()
				if err != nil {
					t.Fatal(err)
				}
				return sent >= 10_000
			})
			stop()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			offered, err := g.Offered()
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}

			before := refused
			err = near.Do(func() error {
				l, err := netlink.LinkByName("eth0")
				if err == nil {
					refused = l.Attrs().Statistics.TxDropped
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			lost := refused - before
			var r Reading
			waitFor(t, func() bool {
				r = read(t, s)
				return r.Good().Packets+r.Bad.Total()+lost >= offered.Frames
			})
			length := offered.Bytes / offered.Frames
			if want := (Tally{offered.Frames - lost, offered.Bytes - lost*length}); r.Good() != want || r.Bad != (Bad{}) {
				t.Errorf("good %+v, bad %+v, offered %+v, %d refused", r.Good(), r.Bad, offered, lost)
			}
			openings := uint64(0)
			if test.opt.TCP {
				openings = r.Of(Kind{Family: test.kind.Family, Protocol: Opening}).Packets
			}
			if r.Of(test.kind).Packets+openings != r.Good().Packets || openings > offered.Openings || openings+lost < offered.Openings {
				t.Errorf("%d of kind %v and %d new connections of %d, %d offered", r.Of(test.kind).Packets, test.kind, openings, r.Good().Packets, offered.Openings)
			}
			if r.Reordered != 0 || r.Latency.Count() != r.Good().Packets || r.Latency.Max <= 0 || r.Latency.Max > took ||
				r.Latency.Percentile(50) > r.Latency.Percentile(99) {
				t.Errorf("%d reordered, %d times up to %v of %v", r.Reordered, r.Latency.Count(), r.Latency.Max, took)
			}
		})
	}
}
