package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/labtest"
	"weir/lab/netlab"
	"weir/lab/site"
	"weir/lab/traffic"
)

// weirBinary is what all tests run; TestMain builds it, once and as a release
// is built. It is empty where no test can run.
var weirBinary string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if _, err := netlab.Sweep(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "weir-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	weirBinary = filepath.Join(dir, "weir")
	build := exec.Command("go", "build", "-o", weirBinary, "weir/cmd/weir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build weir: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// driver is a way of taking frames that the tests ask for, and what the api has
// to say about it then.
type driver struct {
	name            string
	driver, xdpMode string // in the configuration
}

var (
	xdpCopy    = driver{"afxdp-copy", "afxdp", "copy"}
	xdpGeneric = driver{"afxdp-generic", "afxdp", "generic"}
	afPacket   = driver{"afpacket", "afpacket", ""}
)

// eachDriver runs f as a subtest for each of the drivers.
func eachDriver(t *testing.T, f func(t *testing.T, d driver), drivers ...driver) {
	t.Helper()
	labtest.NeedRoot(t)
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) { f(t, d) })
	}
}

// patience is how long anything may take that is polled for.
const patience = 30 * time.Second

// testSite is a site and the test it is for.
type testSite struct {
	*site.Site
	t   *testing.T
	ctx context.Context // of the test's calls; not yet done in its clean-up

	port *uint16 // of the last client of newFlow
}

// in is the site as a subtest sees it, which fails alone.
func (s *testSite) in(t *testing.T) *testSite {
	return &testSite{s.Site, t, s.ctx, s.port}
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// newSite builds a site without a weir in it. It is removed at the end of the
// test, after everything a person wants to see of a failure has been printed.
func newSite(t *testing.T, opt site.Options) *testSite {
	t.Helper()
	labtest.NeedRoot(t)
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "_"), "_")
	opt.Name, opt.Weir = name[:min(len(name), 32)], weirBinary
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	built, err := site.New(ctx, opt)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	port := uint16(20000)
	s := &testSite{built, t, ctx, &port}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			s.explain()
		}
		if err := s.Close(); err != nil {
			t.Errorf("close site: %v", err)
		}
	})
	return s
}

// startSite builds a site and starts weir in it.
func startSite(t *testing.T, opt site.Options, mutate func(*site.Config)) *testSite {
	t.Helper()
	s := newSite(t, opt)
	if mutate != nil {
		mutate(s.Config)
	}
	s.start()
	return s
}

// start starts weir and waits until it is ready.
func (s *testSite) start() {
	s.t.Helper()
	s.must(s.StartWeir(s.ctx))
	s.must(s.WaitReady(s.ctx))
}

// explain prints what is known about a failure.
func (s *testSite) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.t.Logf("weir's log:\n%s", s.WeirLog())
	if neighbours, err := s.ClientHost.Run(ctx, "ip", "neigh"); err == nil {
		s.t.Logf("the client's neighbours:\n%s", neighbours)
	}
	if s.Weir() == nil {
		return
	}
	for _, noun := range []string{"interfaces", "services", "backends", "workers", "drops", "announcements"} {
		text, err := s.RunWeir(ctx, "show", noun)
		if noun == "drops" {
			text = withoutZeros(text)
		}
		s.t.Logf("weir show %s (%v):\n%s", noun, err, text)
	}
}

// withoutZeros leaves the lines of a table out whose last number is 0.
func withoutZeros(table string) string {
	var kept []string
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == "0" {
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// announceAlways has weir announce VIPs that it has no backend for.
func announceAlways(c *site.Config) {
	none := 0
	for i := range c.Services {
		c.Services[i].MinBackends = &none
	}
}

func (s *testSite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// await polls until check returns nil, and returns how long that took.
func (s *testSite) await(what string, check func() error) time.Duration {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	start := time.Now()
	if err := s.Await(ctx, check); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	return time.Since(start)
}

// get reads a noun from the api.
func get[T any](s *testSite, noun string) T {
	s.t.Helper()
	var v T
	s.must(s.API().Get(s.ctx, noun, &v))
	return v
}

// reload changes the configuration and has weir put it in force.
func (s *testSite) reload(mutate func(*site.Config)) {
	s.t.Helper()
	mutate(s.Config)
	_, err := s.Reload(s.ctx)
	s.must(err)
}

// backend returns what the api says of a backend of a service, once it knows it.
func (s *testSite) backend(service string, addr netip.Addr) (found api.Backend) {
	s.t.Helper()
	s.await("the api knows a backend", func() error {
		for _, b := range get[[]api.Backend](s, "backends") {
			if b.Service == service && b.Address == addr {
				found = b
				return nil
			}
		}
		return fmt.Errorf("no %s of service %s", addr, service)
	})
	return found
}

// iface returns what the api says of an interface, once it knows it.
func (s *testSite) iface(name string) (found api.Interface) {
	s.t.Helper()
	s.await("the api knows an interface", func() error {
		for _, i := range get[[]api.Interface](s, "interfaces") {
			if i.Name == name {
				found = i
				return nil
			}
		}
		return fmt.Errorf("no %s", name)
	})
	return found
}

// wantDriver fails the test if an interface is not worked as it should be.
func (s *testSite) wantDriver(name string, want driver) {
	s.t.Helper()
	if i := s.iface(name); i.Driver != want.driver || i.Mode != want.xdpMode {
		s.t.Errorf("interface %s is worked by %q in mode %q, want %q and %q; better ones do not work because of %q",
			name, i.Driver, i.Mode, want.driver, want.xdpMode, i.Reasons)
	}
}

// drops returns the dropped frames by reason.
func (s *testSite) drops() map[string]uint64 {
	s.t.Helper()
	all := make(map[string]uint64)
	for _, d := range get[[]api.Drop](s, "drops") {
		if d.Packets > 0 {
			all[d.Reason] = d.Packets
		}
	}
	return all
}

// noDrops fails the test if weir has dropped a frame for any other reason than
// that the machine was too busy: then a queue or a ring ran full.
func (s *testSite) noDrops() {
	s.t.Helper()
	drops := s.drops()
	for _, reason := range []string{"handover_full", "transmit_full"} {
		if n := drops[reason]; n > 0 {
			s.t.Logf("the machine was busy: %d frames %s", n, reason)
			delete(drops, reason)
		}
	}
	if len(drops) > 0 {
		s.t.Errorf("weir has dropped frames: %v", drops)
	}
}

// clientOf returns the client's address of a VIP's family.
func (s *testSite) clientOf(vip netip.AddrPort) netip.Addr {
	if vip.Addr().Is6() {
		return s.Client6
	}
	return s.Client4
}

// ping sends one echo request from the client and waits a second for the reply.
func (s *testSite) ping(addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	return s.ClientHost.Ping(ctx, addr)
}

// newFlow opens a UDP flow that weir has never seen. A port that the kernel picks
// may be one that it gave to an earlier flow, which weir then still knows.
func (s *testSite) newFlow(vip netip.AddrPort) *traffic.EchoConn {
	s.t.Helper()
	*s.port++ // below those that the kernel picks
	client := *s.Client
	client.Dial = s.ClientHost.DialFrom(netip.AddrPortFrom(s.clientOf(vip), *s.port))
	flow, err := client.OpenEcho(s.ctx, vip)
	s.must(err)
	s.t.Cleanup(func() { flow.Close() })
	return flow
}

// echo sends one datagram from a new socket and waits a second for the answer.
func (s *testSite) echo(vip netip.AddrPort) traffic.Result {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	return s.Client.Echo(ctx, vip, []byte("hello"))
}

// served polls until a VIP is served, and returns how long that took. A lost
// datagram costs little: the next follows at once.
func (s *testSite) served(vip netip.AddrPort) time.Duration {
	s.t.Helper()
	return s.await(vip.String()+" is served", func() error {
		ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
		defer cancel()
		return s.Client.Echo(ctx, vip, []byte("served?")).Err
	})
}

// shortly is how long to wait for something that is not to happen.
const shortly = 300 * time.Millisecond

// contextFor returns a context that is done after d.
func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
