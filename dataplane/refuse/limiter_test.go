package refuse_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
	"weir/dataplane/refuse"
)

func addr(s string) *[16]byte {
	a := packet.Addr16(netip.MustParseAddr(s))
	return &a
}

// allowed asks n times and returns how often the answer was yes.
func allowed(l *refuse.Limiter, src *[16]byte, now flow.Tick, n int) (yes int) {
	for range n {
		if l.Allow(src, now) {
			yes++
		}
	}
	return yes
}

func TestLimiterSource(t *testing.T) {
	l := refuse.NewLimiter(refuse.Limits{All: limit.Rate{PerSecond: 1e6}, Source: limit.Rate{PerSecond: 4, Burst: 6}})
	a := addr("192.0.2.1")
	now := ^flow.Tick(0) - 5 // the clock will wrap
	for i, step := range []struct {
		after flow.Tick
		want  int
	}{
		{0, 6}, {0, 0},
		{3, 0}, {1, 1}, // one each 4 ticks
		{4, 1}, {6, 1}, {2, 1}, // the rest of a token is kept
		{16, 4}, {17, 4}, {15, 4},
		{32, 6}, {1000, 6}, // no more than the burst
	} {
		now += step.after
		if got := allowed(l, a, now, 20); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}

func TestLimiterAll(t *testing.T) {
	l := refuse.NewLimiter(refuse.Limits{All: limit.Rate{PerSecond: 160, Burst: 40}})
	next := uint32(0)
	ask := func(now flow.Tick) (yes int) {
		for range 100 {
			next++
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], next)
			m := packet.Mapped(a)
			yes += allowed(l, &m, now, 1)
		}
		return yes
	}
	for i, step := range []struct {
		now  flow.Tick
		want int
	}{{0, 40}, {0, 0}, {1, 10}, {3, 20}, {100, 40}} {
		if got := ask(step.now); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}

// TestLimiterSourceTakesNothing shows that a source above its own limit leaves
// the common bucket to the others.
func TestLimiterSourceTakesNothing(t *testing.T) {
	l := refuse.NewLimiter(refuse.Limits{All: limit.Rate{PerSecond: 16, Burst: 30}, Source: limit.Rate{PerSecond: 1, Burst: 20}})
	if got := allowed(l, addr("192.0.2.1"), 0, 1000); got != 20 {
		t.Fatalf("%d, want 20", got)
	}
	other := 0
	for _, a := range []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"} {
		other += allowed(l, addr(a), 0, 1000)
	}
	if other != 10 {
		t.Errorf("%d are left to others, want 10", other)
	}
}

func TestLimiterSources(t *testing.T) {
	for name, test := range map[string]struct {
		a, b string
		same bool
	}{
		"IPv4 hosts":            {"192.0.2.1", "192.0.2.2", false},
		"IPv6 hosts of one /64": {"2001:db8::1", "2001:db8::ffff:0:0:1", true},
		"IPv6 networks":         {"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		l := refuse.NewLimiter(refuse.Limits{All: limit.Rate{PerSecond: 1000}, Source: limit.Rate{PerSecond: 1, Burst: 5}})
		allowed(l, addr(test.a), 0, 5)
		if same := allowed(l, addr(test.b), 0, 5) == 0; same != test.same {
			t.Errorf("%s: one bucket %t, want %t", name, same, test.same)
		}
	}
}

// TestLimiterDefaults holds the defaults against a naive sum over an hour.
func TestLimiterDefaults(t *testing.T) {
	l := refuse.NewLimiter(refuse.DefaultLimits())
	const seconds = 3600
	yes := 0
	for now := range flow.Tick(seconds * flow.TicksPerSecond) {
		yes += allowed(l, addr("192.0.2.1"), now, 3)
	}
	if want := 10*seconds + 20; yes < want-10 || yes > want {
		t.Errorf("%d to one source in an hour, want %d", yes, want)
	}
	l = refuse.NewLimiter(refuse.DefaultLimits())
	random := rand.New(rand.NewPCG(1, 1))
	yes = 0
	for now := range flow.Tick(60 * flow.TicksPerSecond) {
		for range 100 {
			var a [16]byte
			binary.BigEndian.PutUint64(a[:], random.Uint64())
			yes += allowed(l, &a, now, 1)
		}
	}
	if want := 60*1000 + 250; yes < want-1000 || yes > want {
		t.Errorf("%d to all in a minute, want %d", yes, want)
	}
}

func TestLimiterNoAllocs(t *testing.T) {
	l := refuse.NewLimiter(refuse.DefaultLimits())
	a := addr("2001:db8::1")
	now := flow.Tick(0)
	if n := testing.AllocsPerRun(1000, func() {
		now++
		l.Allow(a, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := refuse.NewLimiter(refuse.DefaultLimits())
	var a [16]byte
	b.ReportAllocs()
	for i := range b.N {
		binary.BigEndian.PutUint32(a[:], uint32(i))
		l.Allow(&a, flow.Tick(i>>10))
	}
}
