package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// running starts a reconciler in the bubble of a test and waits for its first
// snapshot.
func running(t *testing.T, text string) (*Reconciler, *parts) {
	t.Helper()
	cfg := parse(t, text)
	p := newParts(newWorld(cfg))
	r := p.reconciler(cfg, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	synctest.Wait()
	if n := p.count(); n != 1 {
		t.Fatalf("%d snapshots at the start, want 1", n)
	}
	return r, p
}

func TestNewStartsNothing(t *testing.T) {
	cfg := parse(t, web)
	p := newParts(newWorld(cfg))
	r := p.reconciler(cfg, quiet())
	if p.count() != 0 {
		t.Error("New has applied a snapshot")
	}
	if want := []netip.Addr{netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("10.0.0.12")}; !slices.Equal(p.targets, want) {
		t.Errorf("next hops are asked for %v, want %v", p.targets, want)
	}
	if v := r.View(); v == nil || v.Generation != 0 || len(v.Services) != 0 {
		t.Errorf("the view of nothing is %+v", v)
	}
}

func TestEveryKindOfChangeIsApplied(t *testing.T) {
	const checked = `
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80]
    table_size: 10007
    health: {http: {path: /healthz, codes: [200]}, interval: 3s}
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12, state: disabled}]
`
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, checked)
		status := func() Status { return r.View().Services[0].Backends[0].Status }
		want := health.Check{
			ID: "web 10.0.0.11 203.0.113.10", Way: "web 10.0.0.11", Targets: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.10:80")},
			Probe:    health.HTTP{Path: "/healthz", Method: "GET", Codes: []health.Codes{{Lo: 200, Hi: 200}}},
			Interval: 3 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
		}
		if len(p.checks) != 1 || !reflect.DeepEqual(p.checks[0], want) {
			t.Errorf("checks are %+v, want %+v", p.checks, want)
		}
		for i, step := range []struct {
			signal chan struct{}
			change func(*world)
			want   Status
		}{
			{p.nextHops, func(w *world) { w.hop("10.0.0.11", func(h *nexthop.Hop) { h.State = nexthop.Unreachable }) }, StatusUnreachable},
			{p.nextHops, func(w *world) { w.hop("10.0.0.11", func(h *nexthop.Hop) { h.State = nexthop.Resolved }) }, StatusUp},
			{p.health, func(w *world) { w.sick("web", "10.0.0.11", health.Down) }, StatusDown},
			{p.health, func(w *world) { w.sick("web", "10.0.0.11", health.Up) }, StatusUp},
			{p.dataPlane, func(w *world) { w.interfaces[0].Workers = 0 }, StatusUnreachable},
			{p.dataPlane, func(w *world) { w.interfaces[0].Workers = 1 }, StatusUp},
		} {
			p.change(step.signal, step.change)
			time.Sleep(settle)
			synctest.Wait()
			if n := p.count(); n != i+2 || status() != step.want {
				t.Fatalf("step %d: %d snapshots, backend %s; want %d, %s", i, n, status(), i+2, step.want)
			}
			if r.View().Generation != p.applied[i+1].Generation {
				t.Errorf("step %d: view %d of snapshot %d", i, r.View().Generation, p.applied[i+1].Generation)
			}
		}
		time.Sleep(time.Hour)
		if n := p.count(); n != 7 {
			t.Errorf("%d snapshots after an hour without changes, want 7", n)
		}
	})
}

func TestBurstsAreSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := running(t, web)
		for i := range 9 {
			p.change([]chan struct{}{p.dataPlane, p.nextHops, p.health}[i%3], func(*world) {})
			time.Sleep(settle / 10)
		}
		time.Sleep(time.Minute)
		// What was signalled after the first signal was taken may be looked at
		// once more.
		if n := p.count(); n < 2 || n > 5 {
			t.Errorf("%d snapshots, want one for the burst and a few for what it left", n)
		}
	})
}

func TestSetConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, web)
		more := parse(t, strings.Replace(web, "10.0.0.12}", "10.0.0.12}, {address: 10.0.0.13}", 1))
		if err := r.SetConfig(more); err != nil {
			t.Fatal(err)
		}
		if r.Config() != more || p.count() != 2 || len(p.targets) != 3 || len(r.View().Services[0].Backends) != 3 {
			t.Errorf("%d snapshots, targets %v, view %+v", p.count(), p.targets, r.View())
		}
		if got := r.View().Services[0].Backends[2].Status; got != StatusResolving {
			t.Errorf("a backend nobody has looked for yet is %s", got)
		}
	})
}

// What a check finds without a change of state shows without a new snapshot.
func TestViewHasTheLatestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, web[:len(web)-1]+checked)
		p.change(p.health, func(w *world) { w.sick("web", "10.0.0.11", health.Down) })
		time.Sleep(time.Second)
		before, snapshots := r.View(), p.count()
		p.mu.Lock()
		for id, result := range p.world.health {
			if strings.HasPrefix(id, "web 10.0.0.11 ") {
				result.LastError, result.LastDuration = "status 404", 7*time.Millisecond
				p.world.health[id] = result
			}
		}
		p.mu.Unlock()
		b := &r.View().Services[0].Backends[0]
		if b.Reason != "status 404" || b.Health.LastDuration != 7*time.Millisecond || b.Status != StatusDown {
			t.Errorf("shown is %s because of %q after %s", b.Status, b.Reason, b.Health.LastDuration)
		}
		if before.Services[0].Backends[0].Reason == "status 404" || p.count() != snapshots {
			t.Error("a published view was changed, or a snapshot made")
		}
	})
}

// Traffic must not be sent to a new backend before the way to it is known.
func TestSetConfigWaitsForNextHops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, web)
		other := parse(t, strings.NewReplacer("10.0.0.11", "10.0.0.13", "10.0.0.12", "10.0.0.14").Replace(web))
		old, found := netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("10.0.0.13")
		go func() {
			time.Sleep(200 * time.Millisecond)
			p.mu.Lock()
			if !slices.Contains(p.targets, old) || !slices.Contains(p.targets, found) || len(p.applied) != 1 {
				t.Errorf("while waiting: %d snapshots, targets %v", len(p.applied), p.targets)
			}
			p.mu.Unlock()
			p.change(p.nextHops, func(w *world) {
				hop := w.hops[old]
				hop.Addr = found
				w.hops[found] = hop
				w.hops[netip.MustParseAddr("10.0.0.14")] = nexthop.Hop{State: nexthop.Unreachable, Reason: "no route"}
			})
		}()
		start := time.Now()
		if err := r.SetConfig(other); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 200*time.Millisecond || took > 300*time.Millisecond {
			t.Errorf("took %s of virtual time", took)
		}
		if got := r.View().Services[0].Backends[0].Status; got != StatusUp {
			t.Errorf("the new backend is %s", got)
		}
		if slices.Contains(p.targets, old) {
			t.Errorf("the old backend is still looked for: %v", p.targets)
		}
	})
}

func TestSetConfigThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, web)
		before := r.Config()
		bad := parse(t, strings.NewReplacer("10.0.0.11", "10.0.0.13", "203.0.113.10", "203.0.113.11").Replace(web))
		bad.Services = append(bad.Services, bad.Services[0])
		bad.Services[1].Name = "web2"
		if err := r.SetConfig(bad); err == nil || !strings.Contains(err.Error(), "203.0.113.11") {
			t.Fatalf("SetConfig returned %v", err)
		}
		old := []netip.Addr{netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("10.0.0.12")}
		if r.Config() != before || !slices.Equal(p.targets, old) {
			t.Errorf("targets are %v; want those of the old configuration, %v", p.targets, old)
		}

		// The same if the data plane does not take it: it goes back.
		good := parse(t, strings.Replace(web, "203.0.113.10", "203.0.113.12", 1))
		p.setRefuse(errors.New("no room"))
		if err := r.SetConfig(good); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Fatalf("SetConfig returned %v", err)
		}
		if r.Config() != before || len(p.set.VIPs) != 1 || p.set.VIPs[0].String() != "203.0.113.10" || r.View().Services[0].Addresses[0] != p.set.VIPs[0] {
			t.Errorf("VIPs are %v, view %+v", p.set.VIPs, r.View().Services)
		}
	})
}

func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := running(t, web)
		p.setRefuse(errors.New("no room"))
		p.change(p.health, func(*world) {})
		time.Sleep(settle)
		synctest.Wait()
		if n := p.count(); n != 2 {
			t.Fatalf("%d snapshots, want 2", n)
		}
		p.setRefuse(nil)
		time.Sleep(time.Hour)
		if n := p.count(); n != 3 {
			t.Errorf("%d snapshots, want a third and no more", n)
		}
	})
}

func TestRunFailsIfTheFirstSnapshotDoes(t *testing.T) {
	cfg := parse(t, web)
	p := newParts(newWorld(cfg))
	p.refuse = errors.New("no room")
	if err := p.reconciler(cfg, quiet()).Run(t.Context()); err == nil || !errors.Is(err, p.refuse) {
		t.Errorf("Run returned %v, want %v", err, p.refuse)
	}
}

func TestLogsEachChangeOnce(t *testing.T) {
	var out bytes.Buffer
	cfg := parse(t, web)
	p := newParts(newWorld(cfg))
	r := p.reconciler(cfg, slog.New(slog.NewTextHandler(&out, nil)))
	reconcile := func() string {
		t.Helper()
		out.Reset()
		if err := r.reconcile(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := reconcile(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "backend=10.0.0.11 status=up\n") {
		t.Errorf("at the start: %s", got)
	}
	if got := reconcile(); got != "" {
		t.Errorf("nothing has changed: %s", got)
	}
	p.world.hop("10.0.0.11", func(h *nexthop.Hop) { h.State, h.Reason = nexthop.Unreachable, "there is no route" })
	if got := reconcile(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, `backend=10.0.0.11 status=unreachable was=up reason="there is no route"`) {
		t.Errorf("one is unreachable: %s", got)
	}
	p.world.hop("10.0.0.11", func(h *nexthop.Hop) { h.Reason = "interface eth1 is down" })
	if got := reconcile(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "is down") {
		t.Errorf("for another reason: %s", got)
	}
}

// large is so many services with so many backends each, on tables of size
// entries.
func large(tb testing.TB, services, backends, size int) (*compiler, *world) {
	tb.Helper()
	cfg := parse(tb, web)
	one := cfg.Services[0]
	cfg.Services = nil
	for i := range services {
		s := one
		s.Name, s.TableSize, s.Backends = fmt.Sprintf("service-%d", i), size, nil
		s.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})}
		for k := range backends {
			s.Backends = append(s.Backends, config.Backend{
				Address: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(k)}), Weight: 100, State: config.Active,
			})
		}
		cfg.Services = append(cfg.Services, s)
	}
	return newCompiler(), newWorld(cfg)
}

func BenchmarkCompile(b *testing.B) {
	const services, backends, size = 1000, 100, 10007
	b.Run("all", func(b *testing.B) {
		for range b.N {
			c, w := large(b, services, backends, size)
			if _, err := c.compile(w.input); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one backend changed", func(b *testing.B) {
		c, w := large(b, services, backends, size)
		if _, err := c.compile(w.input); err != nil {
			b.Fatal(err)
		}
		up := false
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			w.hop("10.0.0.7", func(h *nexthop.Hop) {
				h.State = nexthop.Unreachable
				if up {
					h.State = nexthop.Resolved
				}
			})
			up = !up
			if _, err := c.compile(w.input); err != nil {
				b.Fatal(err)
			}
		}
	})
}
