package reconcile

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
)

// The size that the requirement is about.
const (
	manyServices = 1000
	manyBackends = 100 // of each service, its own
)

// many returns a configuration with so many services, each with so many backends of
// its own, all checked at their own addresses.
func many(tb testing.TB, services, backends int) *config.Config {
	cfg := parse(tb, "services:\n"+
		"  - name: web\n    addresses: [203.0.113.10]\n    ports: [tcp/80]\n"+
		"    health: {tcp: {}, check_address: backend}\n    backends: [{address: 10.0.0.11}]\n")
	one := cfg.Services[0]
	cfg.Services = make([]config.Service, services)
	for i := range cfg.Services {
		s := one
		s.Name = fmt.Sprint("web", i)
		s.Addresses = []netip.Addr{numbered(203<<24 | 113<<16 | i)}
		s.Backends = make([]config.Backend, backends)
		for k := range s.Backends {
			s.Backends[k] = one.Backends[0]
			s.Backends[k].Address = numbered(10<<24 | 1<<16 + i*backends + k)
		}
		cfg.Services[i] = s
	}
	return cfg
}

func numbered(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n))))
}

// bigWorld has every backend resolved, at a station of its own, and healthy.
func bigWorld(cfg *config.Config) *world {
	w := newWorld(cfg)
	for addr, hop := range w.hops {
		hop.DstMAC = nexthop.MAC(append([]byte{2, 1}, addr.AsSlice()...))
		w.hops[addr] = hop
	}
	for _, c := range checks(cfg) {
		w.health[c.ID] = health.Result{State: health.Up, LastDuration: time.Millisecond}
	}
	return w
}

// bigReconciler has a snapshot for many services in force.
func bigReconciler(b *testing.B) (*Reconciler, *parts) {
	cfg := many(b, manyServices, manyBackends)
	p := newParts(bigWorld(cfg))
	p.says = true
	r := p.reconciler(cfg, slog.New(slog.DiscardHandler))
	reconciled(b, r)
	return r, p
}

func reconciled(b *testing.B, r *Reconciler) {
	if err := r.reconcile(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFull is the first snapshot, when all is known.
func BenchmarkFull(b *testing.B) {
	cfg := many(b, manyServices, manyBackends)
	p := newParts(bigWorld(cfg))
	p.says = true
	before, n := cpu(), 0
	for b.Loop() {
		n++
		reconciled(b, p.reconciler(cfg, slog.New(slog.DiscardHandler)))
		p.applied = p.applied[:0]
	}
	b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(n), "cpu-ms/op")
}

// cpu returns the time that all threads have run, which other processes do not make
// longer by as much as the time on the wall.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkChange is what one change takes from the moment when it can be read to
// the snapshot that has it, the largest value of all as well.
func BenchmarkChange(b *testing.B) {
	for _, bc := range []struct {
		name   string
		change func(r *Reconciler, p *parts, n int)
	}{
		{"nothing", func(*Reconciler, *parts, int) {}},
		{"health", func(_ *Reconciler, p *parts, n int) {
			s := &p.world.config.Services[n/2%manyServices]
			state := []health.State{health.Down, health.Up}[n%2]
			p.world.setHealth(checkID(s, s.Backends[n/2%manyBackends].Address, netip.Addr{}), health.Result{State: state})
		}},
		{"weight", func(r *Reconciler, p *parts, n int) { // by an order, as a reload reads a file first
			s := &p.world.config.Services[n/2%manyServices]
			m := member{s.Name, s.Backends[n/2%manyBackends].Address}
			if n%2 == 0 {
				r.drains[m] = Drain{}
			} else {
				delete(r.drains, m)
			}
		}},
		{"hop", func(_ *Reconciler, p *parts, n int) {
			s := &p.world.config.Services[n%manyServices]
			p.world.setHop(s.Backends[n%manyBackends].Address, func(h *nexthop.Hop) { h.DstMAC[0] ^= 4 })
		}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			r, p := bigReconciler(b)
			runtime.GC()
			var took []time.Duration
			before := cpu()
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				bc.change(r, p, n)
				start := time.Now()
				reconciled(b, r)
				took = append(took, time.Since(start))
				p.applied = p.applied[:0]
			}
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(len(took)), "cpu-µs/op")
			slices.Sort(took)
			b.ReportMetric(float64(took[0].Microseconds()), "min-µs")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}

// BenchmarkReload is a configuration in which one weight is another.
func BenchmarkReload(b *testing.B) {
	r, p := bigReconciler(b)
	n := 0
	for b.Loop() {
		n++
		cfg := *p.world.config
		cfg.Services = slices.Clone(cfg.Services)
		s := &cfg.Services[n%manyServices]
		s.Backends = slices.Clone(s.Backends)
		s.Backends[n%manyBackends].Weight++
		p.world.config = &cfg
		if err := r.SetConfig(&cfg); err != nil {
			b.Fatal(err)
		}
		p.applied = p.applied[:0]
	}
}
