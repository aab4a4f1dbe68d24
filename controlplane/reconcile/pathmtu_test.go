package reconcile

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/nexthop"
	"weir/dataplane/engine"
)

func TestLearnPathMTU(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("2001:db8::12")
	p := make(pathMTUs)
	for i, step := range []struct {
		after   time.Duration
		backend netip.Addr
		mtu     int
		changes bool
		want    int
	}{
		{0, four, 1400, true, 1400},
		{time.Minute, four, 1450, false, 1400}, // late, or forged
		{2 * time.Minute, four, 1300, true, 1300},
		{3 * time.Minute, four, 1300, false, 1300},
		{4 * time.Minute, four, 68, true, minMTU4},
		{4 * time.Minute, six, 100, true, minMTU6},
		{4 * time.Minute, four, 0, false, minMTU4},
	} {
		now := noon.Add(step.after)
		if got := p.learn(engine.PathMTU{Backend: step.backend, MTU: step.mtu}, now); got != step.changes {
			t.Errorf("step %d: a change: %v", i, got)
		}
		mtus, _ := p.current(among(four, six), now)
		if mtus[step.backend] != step.want {
			t.Errorf("step %d: MTU %d, want %d", i, mtus[step.backend], step.want)
		}
	}
	mtus, next := p.current(among(four), noon.Add(13*time.Minute))
	if len(mtus) != 1 || len(p) != 1 || !next.Equal(noon.Add(14*time.Minute)) {
		t.Errorf("%v, next %v; want that of %s until 12:14", mtus, next, four)
	}
	if mtus, next = p.current(among(four), noon.Add(14*time.Minute)); len(mtus) != 0 || len(p) != 0 || !next.IsZero() {
		t.Errorf("%v after 10 minutes without a word, next %v", mtus, next)
	}
}

func TestPathMTUIsUsedForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, tunnel)
		var out bytes.Buffer
		r.log = slog.New(slog.NewTextHandler(&out, nil))
		tell := func(backend string, mtu int) {
			p.pathMTU <- engine.PathMTU{Backend: netip.MustParseAddr(backend), MTU: mtu}
			time.Sleep(2 * settle)
			synctest.Wait()
		}
		expect := func(what string, mtu int, source MTUSource, snapshots int) {
			t.Helper()
			synctest.Wait()
			b := r.View().Services[0].Backends[0]
			if b.MTU != mtu || b.MTUSource != source || p.count() != snapshots {
				t.Errorf("%s: MTU %d (%s), %d snapshots; want %d (%s), %d", what, b.MTU, b.MTUSource, p.count(), mtu, source, snapshots)
			}
			if room := p.last().Backend(0).Rewrite.Room(); room != uint32(mtu-20) {
				t.Errorf("%s: workers send up to %d bytes", what, room)
			}
		}
		expect("at first", 1500, MTULink, 1)
		tell("10.0.0.11", 1400)
		expect("told", 1400, MTULearned, 2)
		tell("10.0.0.11", 1400)
		expect("told again", 1400, MTULearned, 2)
		tell("10.0.0.99", 1300)
		expect("told about somebody else", 1400, MTULearned, 2)
		tell("10.0.0.11", 9000)
		expect("told of a longer one", 1400, MTULearned, 2)
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "service=web backend=10.0.0.11 mtu=1400 was=1500") {
			t.Errorf("logged %s", got)
		}
		out.Reset()
		time.Sleep(mtuLife - time.Second)
		expect("almost 10 minutes later", 1400, MTULearned, 2)
		time.Sleep(2 * time.Second)
		// One snapshot is of when the first message was 10 minutes old.
		expect("10 minutes later", 1500, MTULink, 4)
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "mtu=1500 was=1400") {
			t.Errorf("logged %s", got)
		}
		time.Sleep(time.Hour)
		expect("an hour later", 1500, MTULink, 4)

		// The link's own MTU is never exceeded, and explains itself.
		tell("10.0.0.11", 1400)
		p.change(p.nextHops, func(w *world) { w.hop("10.0.0.11", func(h *nexthop.Hop) { h.MTU = 1350 }) })
		time.Sleep(2 * settle)
		expect("on another link", 1350, MTULink, 6)

		if err := r.SetConfig(parse(t, tunnel+"path_mtu: fixed\n")); err != nil {
			t.Fatal(err)
		}
		p.change(p.nextHops, func(w *world) { w.hop("10.0.0.11", func(h *nexthop.Hop) { h.MTU = 1500 }) })
		time.Sleep(2 * settle)
		expect("switched off", 1500, MTULink, 8)
		tell("10.0.0.11", 1300)
		expect("told while switched off", 1500, MTULink, 8)
	})
}

// Workers may all be told something at once.
func TestPathMTUsTogetherMakeOneSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, tunnel)
		for mtu := 1407; mtu >= 1400; mtu-- { // as many as the channel holds
			p.pathMTU <- engine.PathMTU{Backend: netip.MustParseAddr("10.0.0.11"), MTU: mtu}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if mtu := r.View().Services[0].Backends[0].MTU; mtu != 1400 || p.count() != 2 || len(p.pathMTU) != 0 {
			t.Errorf("MTU %d after %d snapshots, %d messages wait; want 1400 after 2", mtu, p.count(), len(p.pathMTU))
		}
	})
}

func among(addrs ...netip.Addr) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return slices.Contains(addrs, a) }
}
