// Package demo is the demonstration: a real web service that weir balances, in
// network namespaces on one machine, with a backend that dies under way.
//
// The problem it solves: whoever meets a load balancer for the first time wants
// to see it work before reading how, and has no two machines and no NIC to
// spare. So the demo builds a site with real kernels and real servers, makes
// requests of which every byte is checked, shows what weir and the clients see
// once a second, and in the end says whether weir kept what it promises. That
// verdict is a pure function of what was recorded and asks for proof of each
// claim, so that a demo in which little happened fails.
//
// In here, scenario decides what happens when, load makes the requests, monitor
// asks weir, screen turns what both know into text, and verdict judges it.
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
	MinDuration = 10 * time.Second // a third of it is enough to notice a dead backend
	MaxDuration = 5 * time.Minute  // no port of the client is used twice
)

// LabName is the name of the demo's lab: its namespaces are called
// weir-demo-PID-HOST.
const LabName = "demo"

// victim is the index of the backend that is stopped.
const victim = 1

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
	site    *site.Site
	streams []stream
	names   map[string]string // of backends, by each of their addresses

	journal  *journal
	recorder *recorder
	monitor  *monitor
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
	if d.site != nil {
		err = errors.Join(err, d.site.Close())
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
	if err := d.site.StopWeir(); err != nil {
		reasons = append(reasons, err.Error())
		d.screen.printf("FAILED: %v\n", err)
	}
	if len(reasons) > 0 {
		return ErrFailed
	}
	return nil
}

// build builds the site and starts weir in it.
func (d *Demo) build(ctx context.Context) (err error) {
	d.screen.printf("Building a network of namespaces: a client, a switch, weir and %d web servers ...\n", backends)
	d.site, err = site.New(ctx, site.Options{Name: LabName, Weir: d.opt.Weir, Backends: backends, Health: true})
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	configure(d.site)
	d.names = make(map[string]string)
	for _, b := range d.site.Backends {
		d.names[b.Addr4.String()], d.names[b.Addr6.String()] = b.Name, b.Name
	}
	d.streams = []stream{
		{serviceDSR, d.site.DSR4}, {serviceDSR, d.site.DSR6},
		{serviceIPIP, d.site.IPIP4}, {serviceIPIP, d.site.IPIP6},
	}
	if err := d.site.StartWeir(ctx); err != nil {
		return errors.Join(err, ctx.Err())
	}
	if err := d.site.WaitReady(ctx); err != nil {
		return errors.Join(fmt.Errorf("%w\nweir's log:\n%s", err, d.logTail()), ctx.Err())
	}
	d.monitor, err = newMonitor(d.site.API(), d.site.Weir().PID())
	return err
}

// introduce says what is there to be seen.
func (d *Demo) introduce(ctx context.Context) error {
	text, err := os.ReadFile(d.site.ConfigPath)
	if err != nil {
		return fmt.Errorf("show configuration: %w", err)
	}
	weir, err := d.monitor.describe(ctx)
	if err != nil {
		return err
	}
	d.screen.printf("\nweir runs on %s. Its configuration, %s:\n\n%s\n", weir, d.site.ConfigPath, indent(brief(string(text))))
	d.screen.printf("Both services are asked for pages of %d KiB, over IPv4 and over IPv6, %d times\n"+
		"a second each, on a new connection every time. The pages come back from the\n"+
		"backends directly: weir sees only the way there. After %v backend %s will die.\n\n",
		pageSize>>10, int(time.Second/requestInterval), (d.opt.Duration / 3).Round(time.Second), d.site.Backends[victim].Name)
	return ctx.Err()
}

// perform runs the scenario with load, monitor and display beside it, and
// returns all that was seen.
func (d *Demo) perform(ctx context.Context) (*evidence, *state, error) {
	if err := d.monitor.poll(ctx); err != nil {
		return nil, nil, err
	}
	d.recorder = newRecorder(len(d.streams))
	s := &scenario{demo: d, duration: d.opt.Duration}
	s.begin()
	if err := d.together(ctx, s); err != nil {
		return nil, nil, d.explain(err)
	}
	if err := d.monitor.poll(ctx); err != nil {
		return nil, nil, err
	}
	e := s.evidence
	e.requests = d.recorder.all()
	e.newFlows = d.monitor.latest.newFlows()
	final := d.state(e.course.started, time.Now())
	return &e, final, nil
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

// explain puts weir's own last words in the place of an error that comes from
// its not being there any more. The api goes away a little before the process.
func (d *Demo) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	select {
	case <-d.site.Weir().Done():
		return fmt.Errorf("weir ended in the middle of the demo; its log:\n%s", d.logTail())
	case <-time.After(time.Second):
		return err
	}
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
			if err := d.monitor.poll(ctx); err != nil && ctx.Err() == nil {
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
	d.screen.printf("\nThe lab stays up until Ctrl-C. To look around, in another terminal as root:\n\n"+
		"  export WEIR_SOCKET=%s\n"+
		"  %s show backends\n"+
		"  %s show flows --limit 20\n"+
		"  ip netns exec %s curl http://%s/whoami\n"+
		"  ip netns exec %s curl 'http://%s/whoami'\n"+
		"  ip netns exec %s tcpdump -c 20 -ni eth0 host %s\n"+
		"  less %s\n\n",
		d.site.Socket, weir, weir,
		d.site.ClientHost.Namespace(), d.site.DSR4, d.site.ClientHost.Namespace(), d.site.IPIP6,
		d.site.Backends[0].Host.Namespace(), d.site.DSR4.Addr(), d.site.ConfigPath)
	<-ctx.Done()
	d.screen.printf("\nremoving the lab\n")
}

// logTail returns the last lines that weir logged.
func (d *Demo) logTail() string {
	lines := strings.Split(d.site.WeirLog(), "\n")
	return indent(strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ") + "\n"
}
