package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/api"
	"weir/lab/labtest"
	"weir/lab/site"
	"weir/lab/traffic"
	"weir/perf/generator"
)

// flood is a generator where weir's front interface is plugged in: what it sends
// comes in as if the switch had sent it, on the queue that clients use too.
type flood struct {
	generator *generator.Generator
	stop      context.CancelFunc
	ended     chan error
}

// floodFrom is where the flood claims to come from: addresses for measurements
// (RFC 2544, appendix C.2.2), to which no host of the site has a way.
var floodFrom = netip.MustParsePrefix("198.18.0.0/15")

// startFlood sends as many SYNs a second to a VIP, each from a random source.
func (s *testSite) startFlood(vip netip.AddrPort, rate int) *flood {
	s.t.Helper()
	port, err := s.FrontNet.Port(s.WeirHost, site.Front)
	s.must(err)
	weir, client := s.link(s.WeirHost, site.Front), s.link(s.ClientHost, "eth0")
	g, err := generator.New(generator.Options{
		Interface: port.Index, Source: client[:], Destination: weir[:],
		To: vip, SYN: true, Flood: floodFrom, Seed: 1, CPU: floodCPU(),
	})
	s.must(err)
	ctx, stop := context.WithCancel(s.ctx)
	f := &flood{generator: g, stop: stop, ended: make(chan error, 1)}
	go func() { f.ended <- s.FrontNet.Do(func() error { return g.Run(ctx) }) }()
	s.must(g.SetRate(rate))
	return f
}

// floodCPU is the CPU that the flood comes from.
func floodCPU() int { return runtime.NumCPU() - 1 }

// leaveCPU keeps all threads of this process and of weir off a CPU, and all that
// they make later. An attacker has CPUs of its own: those who have to share one
// with it here wait for its softirqs. Nor do clients and servers share weir's
// CPUs outside a lab; where they do here, weir goes first.
func (s *testSite) leaveCPU(cpu int) {
	s.t.Helper()
	var all unix.CPUSet
	s.must(unix.SchedGetaffinity(0, &all))
	rest := all
	rest.Clear(cpu)
	if rest.Count() == 0 {
		return
	}
	confine := func(pid int, set *unix.CPUSet, nice int) {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		s.must(err)
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			s.must(err)
			err = errors.Join(unix.SchedSetaffinity(id, set), unix.Setpriority(unix.PRIO_PROCESS, id, nice))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				s.t.Errorf("keep thread %d off cpu %d: %v", id, cpu, err)
			}
		}
	}
	confine(os.Getpid(), &rest, 0)
	confine(s.Weir().PID(), &rest, -10)
	s.t.Cleanup(func() { confine(os.Getpid(), &all, 0) })
}

// end stops the flood and returns how many frames were sent.
func (f *flood) end() (uint64, error) {
	f.stop()
	if err := <-f.ended; err != nil {
		return 0, err
	}
	sent, err := f.generator.Sent()
	if err != nil {
		return 0, err
	}
	return sent, f.generator.Close()
}

// cpuUsed returns the time that the CPUs have spent on all programs, and on those
// of this test (proc_stat(5) and proc_pid_stat(5), in ticks of 1/100 s). The
// kernel's time is left out: most of it is the flood's, and on no account.
func (s *testSite) cpuUsed() (all, ours time.Duration) {
	s.t.Helper()
	const tick, user, nice, steal = 10 * time.Millisecond, 1, 2, 8
	read := func(path string) []byte {
		text, err := os.ReadFile(path)
		s.must(err)
		return text
	}
	ticks := func(fields []string, at int) time.Duration {
		n, err := strconv.Atoi(fields[at])
		s.must(err)
		return time.Duration(n) * tick
	}
	line, _, _ := strings.Cut(string(read("/proc/stat")), "\n")
	fields := strings.Fields(line)
	all = ticks(fields, user) + ticks(fields, nice) + ticks(fields, steal)
	for _, pid := range []int{os.Getpid(), s.Weir().PID()} {
		text := read(fmt.Sprintf("/proc/%d/stat", pid))
		const utime = 13 - 2 // after the name, which may have spaces in it
		ours += ticks(strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])), utime)
	}
	return all, ours
}

// awaitQuiet waits for others to leave the CPUs alone, for as long as there is
// hope of it.
func (s *testSite) awaitQuiet() {
	s.t.Helper()
	const window, tries = 500 * time.Millisecond, 30
	for range tries {
		all, ours := s.cpuUsed()
		time.Sleep(window)
		allNow, oursNow := s.cpuUsed()
		if allNow-all-(oursNow-ours) <= window/10 {
			return
		}
	}
}

// flooded is what came of a flood beside streams.
type flooded struct {
	others        time.Duration // CPU time that other programs took
	sent          uint64
	worst         []traffic.Result // of each stream, the echo that took longest
	slowest       time.Duration    // of them
	before, after api.Worker
}

// floodBeside floods a VIP for some seconds. 50 streams that were there
// before echo ten times a second, which makes 20 KB/s for each.
func (s *testSite) floodBeside(vip netip.AddrPort, rate int, lasts time.Duration) (f flooded) {
	s.t.Helper()
	const streams, perEcho, interval = 50, 2 << 10, 100 * time.Millisecond
	client := *s.Client
	client.Timeout = 3 * time.Second
	crowd, err := traffic.OpenCrowd(s.ctx, traffic.CrowdConfig{
		Clients: []*traffic.Client{&client}, Target: netip.AddrPortFrom(vip.Addr(), site.StreamPort), Streams: streams,
	})
	s.must(err)
	defer crowd.Close()
	s.must(crowd.Echo(s.ctx, []byte("before the flood"))) // now weir has seen more than an opening
	f.before = get[[]api.Worker](s, "workers")[0]

	s.awaitQuiet()
	all, ours := s.cpuUsed()
	flood := s.startFlood(vip, rate)
	ctx, cancel := context.WithTimeout(s.ctx, lasts)
	defer cancel()
	f.worst = crowd.Pulse(ctx, interval, make([]byte, perEcho))
	<-ctx.Done() // Pulse ends sooner if all streams have failed
	f.after = get[[]api.Worker](s, "workers")[0]
	f.sent, err = flood.end()
	s.must(err)
	allNow, oursNow := s.cpuUsed()
	f.others = allNow - all - (oursNow - ours)
	for _, r := range f.worst {
		f.slowest = max(f.slowest, r.Duration)
	}
	s.t.Logf("flooded with %d frames, %d of which weir received; the slowest echo took %v; others used the CPUs for %v",
		f.sent, f.after.Received.Packets-f.before.Received.Packets, f.slowest, f.others)
	s.t.Logf("flows %d of %d, trusted ones evicted %d, drops %v, kernel dropped %d",
		f.after.Flows, f.after.FlowCapacity, f.after.FlowsEvicted, f.after.Drops, f.after.KernelDropped)
	return f
}

// TestFlood sends SYNs from random sources to a VIP for ten seconds. 50
// connections that were there before go on, without an echo that takes longer
// than a second, and weir needs no more memory than it had.
//
// With a limit on new flows there are a million SYNs a second. Without one, weir
// and the backends do all their work for each, on two CPUs that they share with
// the flood; there it is the flow table that is tried, many times its size.
func TestFlood(t *testing.T) {
	labtest.NeedRoot(t)
	const lasts = 10 * time.Second
	for _, c := range []struct {
		name    string
		service string
		rate    int // that is asked for
		enough  uint64
		limits  *site.Limits
	}{
		{"without-limits", site.DSR4, 100_000, 500_000, nil},
		{"with-limits", site.DSR4, 1_100_000, 10_000_000, &site.Limits{NewFlows: 5000}},
		{"nat", site.NAT4, 40_000, 200_000, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSite(t, site.Options{Driver: xdpCopy.driver, XDPMode: xdpCopy.xdpMode, Modes: site.DSR | site.NAT}, func(conf *site.Config) {
				conf.NAT.Ports = "20000-49999"
				conf.Service(site.NAT4).SetPort(0)
				v := conf.Service(c.service)
				v.Ports = append(v.Ports, fmt.Sprintf("tcp/%d", site.StreamPort))
				v.Limits = c.limits
				conf.Interfaces[0].CPUs = []int{0}
			})
			s.leaveCPU(floodCPU())
			vip := map[string]netip.AddrPort{site.DSR4: s.DSR4, site.NAT4: s.NAT4}[c.service]
			f := s.floodBeside(vip, c.rate, lasts)
			for again := 0; f.others > lasts/40 && again < 3; again++ {
				t.Log("others kept the machine busy; once more")
				f = s.floodBeside(vip, c.rate, lasts)
			}
			for _, r := range f.worst {
				if r.Err != nil {
					t.Errorf("broken: %v", r)
				}
			}
			// How fast it all was says nothing where others were at work, or
			// where the flood did not get the CPU it needs.
			if quiet := f.others <= lasts/40 && f.sent >= c.enough; quiet && f.slowest > time.Second {
				t.Errorf("an echo took %v", f.slowest)
			} else if !quiet {
				t.Logf("not judged: others took %v of the CPUs, and the flood had %d frames of %d", f.others, f.sent, c.enough)
			}
			if f.after.FlowCapacity != f.before.FlowCapacity || f.after.Flows > f.after.FlowCapacity || f.after.FlowsEvicted > 0 {
				t.Errorf("the flow table had room for %d flows, has %d of %d, and let %d trusted ones go",
					f.before.FlowCapacity, f.after.Flows, f.after.FlowCapacity, f.after.FlowsEvicted)
			}
			if n := s.drops()["service_limit"]; (n > 0) != (c.limits != nil) {
				t.Errorf("%d packets are counted as above the limit", n)
			}
		})
	}
}
