// Package demo is the demonstration: a real web service that two weirs balance,
// in network namespaces on one machine, with a backend that dies under way and
// a weir that is killed.
//
// The problem it solves: whoever meets a load balancer for the first time wants
// to see it work before reading how, and has no two machines, no router and no
// NIC to spare. So the demo builds a network with real kernels, real servers and
// a real router, makes requests of which every byte is checked, shows what the
// weirs and the clients see once a second, and in the end says whether weir kept
// what it promises. That verdict is a pure function of what was recorded and
// asks for proof of each claim, so that a demo in which little happened fails.
//
// In here, scenario decides what happens when, load makes the requests and keeps
// long connections, monitor asks a weir, screen turns what they know into text,
// and verdict judges it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/lab/netlab"
	"weir/lab/pair"
	"weir/lab/site"
)

var (
	// ErrFailed is returned by Run when weir has not done what it should. The
	// reasons have been printed.
	ErrFailed = errors.New("the demo failed")

	// ErrInterrupted is returned by Run when its context was cancelled before
	// the demo was through.
	ErrInterrupted = errors.New("interrupted; the lab has been removed")
)

// The bounds of how long there is traffic.
const (
	MinDuration = 15 * time.Second // a sixth of it is enough to notice a dead backend
	MaxDuration = 5 * time.Minute  // no port of the client is used twice
)

// LabName is the name of the demo's lab: its namespaces are called
// weir-demo-PID-HOST.
const LabName = "demo"

const (
	victim = 1 // index of the backend that is stopped
	killed = 0 // index of the weir that is killed
)

// Options say how the demo is run.
type Options struct {
	Weir     string        // path of the weir binary
	Duration time.Duration // of the traffic
	Keep     bool          // leaves the lab up at the end until the context is done

	Out   io.Writer
	Plain bool // lines one after the other, even if Out is a terminal
}

// Demo is one demonstration.
type Demo struct {
	opt     Options
	screen  *terminal
	pair    *pair.Pair
	streams []stream
	names   map[string]string // of backends, by each of their addresses

	journal  *journal
	recorder *recorder
	long     *long
	monitors []*monitor // of the weirs, in order
}

// New checks the options. Nothing is built yet.
func New(opt Options) (*Demo, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the demo makes network namespaces; run it as root")
	}
	if opt.Duration < MinDuration || opt.Duration > MaxDuration {
		return nil, fmt.Errorf("duration %v: want %v to %v", opt.Duration, MinDuration, MaxDuration)
	}
	info, err := os.Stat(opt.Weir)
	if err != nil {
		return nil, fmt.Errorf("no weir to show: %w; build it with `make build`, or name it with --weir", err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("no weir to show: %s is no program; build it with `make build`, or name it with --weir", opt.Weir)
	}
	return &Demo{opt: opt, screen: newTerminal(opt.Out, opt.Plain), journal: newJournal()}, nil
}

// Run builds the lab, shows the demo, and removes the lab. It returns nil only
// if weir did all it should.
func (d *Demo) Run(ctx context.Context) error {
	err := d.run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = ErrInterrupted
	}
	if d.pair != nil {
		err = errors.Join(err, d.pair.Close())
	}
	return err
}

func (d *Demo) run(ctx context.Context) error {
	swept, err := netlab.Sweep()
	if err != nil {
		return err
	}
	if len(swept) > 0 {
		d.screen.printf("removed %d namespaces of a lab that was killed\n", len(swept))
	}
	if err := d.build(ctx); err != nil {
		return err
	}
	if err := d.introduce(ctx); err != nil {
		return err
	}
	e, final, err := d.perform(ctx)
	if err != nil {
		return err
	}
	account := e.add()
	reasons := judge(e, account)
	d.screen.printf("%s", summary(e, account, final, reasons, d.screen.colour))
	if d.opt.Keep {
		d.lookAround(ctx)
	}
	if err := d.stop(); err != nil {
		reasons = append(reasons, err.Error())
		d.screen.printf("FAILED: %v\n", err)
	}
	if len(reasons) > 0 {
		return ErrFailed
	}
	return nil
}

// stop ends all weirs in good order.
func (d *Demo) stop() error {
	var group errgroup.Group
	for _, w := range d.pair.Weirs {
		group.Go(func() error {
			if err := w.Stop(); err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// build builds the network and starts the weirs in it.
func (d *Demo) build(ctx context.Context) (err error) {
	d.screen.printf("Building a network of namespaces: a client, a router that speaks BGP, two weirs and %d web servers ...\n", backends)
	d.pair, err = pair.New(ctx, pair.Options{
		Name: LabName, Weir: d.opt.Weir, Backends: backends, Modes: site.DSR | site.IPIP, Routing: pair.FRR, Together: true,
	})
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	d.pair.Configure(d.configure)
	d.names = make(map[string]string)
	for _, b := range d.pair.Backends {
		d.names[b.Addr4.String()], d.names[b.Addr6.String()] = b.Name, b.Name
	}
	d.streams = []stream{
		{serviceDSR, d.pair.DSR4}, {serviceDSR, d.pair.DSR6},
		{serviceIPIP, d.pair.IPIP4}, {serviceIPIP, d.pair.IPIP6},
	}
	if err := d.pair.Start(ctx); err != nil {
		return errors.Join(fmt.Errorf("%w\n%s", err, d.logTails()), ctx.Err())
	}
	for _, s := range d.streams {
		if err := d.pair.AwaitRoutes(ctx, s.vip.Addr(), d.pair.Weirs...); err != nil {
			return errors.Join(fmt.Errorf("%w\n%s", err, d.logTails()), ctx.Err())
		}
	}
	for _, w := range d.pair.Weirs {
		m := newMonitor(w.Name, w.API())
		if err := m.appear(ctx, w.Process()); err != nil {
			return err
		}
		d.monitors = append(d.monitors, m)
	}
	return nil
}

// introduce says what is there to be seen.
func (d *Demo) introduce(ctx context.Context) error {
	first := d.pair.Weirs[killed]
	text, err := os.ReadFile(first.ConfigPath)
	if err != nil {
		return fmt.Errorf("show configuration: %w", err)
	}
	version, err := d.pair.FRR.Query(ctx, "show version")
	if err != nil {
		return err
	}
	version, _, _ = strings.Cut(version, " (")
	routes, err := d.pair.Router.Run(ctx, "ip", "route", "show", d.streams[0].vip.Addr().String())
	if err != nil {
		return err
	}
	d.screen.printf("\nBoth weirs run on %s. Configuration of %s, %s:\n\n%s\n", d.monitors[killed].description, first.Name, first.ConfigPath, indent(brief(string(text))))
	d.screen.printf("The router, %s, has learned from them:\n\n%s\n", version, indent(routes))
	d.screen.printf("Both services are asked for pages of %d KiB, over IPv4 and over IPv6, %d times\n"+
		"a second each, on a new connection every time. The router spreads the connections\n"+
		"over the weirs, and the pages come back from the backends directly. After %v\n"+
		"backend %s will die, and after %v %s is killed, on which %d long connections\n"+
		"are to go on by the other.\n\n",
		pageSize>>10, int(time.Second/requestInterval),
		moment(d.opt.Duration, stopAt), d.pair.Backends[victim].Name, moment(d.opt.Duration, killAt), first.Name, len(d.streams)*longEach)
	return ctx.Err()
}

// moment is a twelfth of the duration, or several, as it is told.
func moment(duration time.Duration, twelfths int) time.Duration {
	return (duration * time.Duration(twelfths) / 12).Round(100 * time.Millisecond)
}

// perform runs the scenario with load, monitors and display beside it, and
// returns all that was seen.
func (d *Demo) perform(ctx context.Context) (*evidence, *state, error) {
	if err := d.poll(ctx); err != nil {
		return nil, nil, err
	}
	d.recorder, d.long = newRecorder(len(d.streams)), &long{}
	s := &scenario{demo: d, duration: d.opt.Duration}
	s.begin()
	if err := d.together(ctx, s); err != nil {
		return nil, nil, d.explain(err)
	}
	if err := d.poll(ctx); err != nil {
		return nil, nil, err
	}
	e := s.evidence
	e.requests = d.recorder.all()
	e.long = d.long.outcome()
	e.newFlows = make(map[string]uint64)
	for _, m := range d.monitors {
		for service, n := range m.newFlows() {
			e.newFlows[service] += n
		}
	}
	final := d.state(e.course.started, time.Now())
	return &e, final, nil
}

// poll asks all weirs that are there for everything.
func (d *Demo) poll(ctx context.Context) error {
	for _, m := range d.monitors {
		if err := m.poll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// together runs load, display and scenario until the last is through.
func (d *Demo) together(ctx context.Context, s *scenario) error {
	group, ctx := errgroup.WithContext(ctx)
	requesting, stopRequests := context.WithCancel(ctx)
	watching, stopWatching := context.WithCancel(ctx)
	defer stopRequests()
	defer stopWatching()
	group.Go(func() error { return d.load(ctx, requesting) })
	group.Go(func() error {
		if err := d.display(watching, s.evidence.course.started); err != nil || ctx.Err() != nil {
			return err
		}
		return d.screen.show(d.state(s.evidence.course.started, time.Now()), true)
	})
	group.Go(func() error {
		defer stopWatching()
		if err := s.run(ctx); err != nil {
			return err
		}
		stopRequests()
		return d.recorder.idle(ctx)
	})
	return group.Wait()
}

// explain puts a weir's own last words in the place of an error that comes from
// its not being there any more. The api goes away a little before the process.
func (d *Demo) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	deadline := time.Now().Add(time.Second)
	for time.Now().Before(deadline) {
		for i, m := range d.monitors {
			if m.died() {
				return fmt.Errorf("%s ended in the middle of the demo; its log:\n%s", m.name, d.logTail(d.pair.Weirs[i]))
			}
		}
		time.Sleep(watchInterval)
	}
	return err
}

// display shows the state once a second, and at once when something happens,
// until ctx is done.
func (d *Demo) display(ctx context.Context, started time.Time) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.journal.news:
		case <-tick.C:
			if err := d.poll(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		if err := d.screen.show(d.state(started, time.Now()), false); err != nil {
			return err
		}
	}
}

// lookAround says how the lab can be looked into, and waits.
func (d *Demo) lookAround(ctx context.Context) {
	weir := d.opt.Weir
	if path, err := filepath.Abs(weir); err == nil {
		weir = path
	}
	first, client := d.pair.Weirs[0], d.pair.ClientHost.Namespace()
	d.screen.printf("\nThe lab stays up until Ctrl-C. To look around, in another terminal as root:\n\n"+
		"  export WEIR_SOCKET=%s     # or %s\n"+
		"  %s show backends\n"+
		"  %s show announcements\n"+
		"  %s show flows --limit 20\n"+
		"  ip netns exec %s curl http://%s/whoami\n"+
		"  ip netns exec %s curl 'http://%s/whoami'\n"+
		"  ip netns exec %s tcpdump -c 20 -ni eth0 host %s\n"+
		"  ip netns exec %s %s -c 'show bgp summary'\n"+
		"  less %s\n\n",
		first.Socket, d.pair.Weirs[1].Socket, weir, weir, weir,
		client, d.pair.DSR4, client, d.pair.IPIP6,
		d.pair.Backends[0].Host.Namespace(), d.pair.DSR4.Addr(),
		d.pair.Router.Namespace(), d.pair.FRR.Shell(), first.ConfigPath)
	<-ctx.Done()
	d.screen.printf("\nremoving the lab\n")
}

// logTails returns the last lines that each weir logged.
func (d *Demo) logTails() string {
	var b strings.Builder
	for _, w := range d.pair.Weirs {
		fmt.Fprintf(&b, "log of %s:\n%s", w.Name, d.logTail(w))
	}
	return b.String()
}

// logTail returns the last lines that a weir logged.
func (d *Demo) logTail(w *pair.Weir) string {
	lines := strings.Split(w.Log(), "\n")
	return indent(strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ") + "\n"
}
