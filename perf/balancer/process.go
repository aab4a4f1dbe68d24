package balancer

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"

	"github.com/urfave/cli/v2"

	"weir/dataplane/affinity"
	"weir/lab/netlab"
	"weir/perf/measure"
)

// What a balancer's process can be asked for.
const (
	askStatus = "status" // a Status
	askKnown  = "known"  // a Known
	askDrain  = "drain"  // a Status
	askLost   = "lost"   // a Loss
)

// Process is a Balancer in a process of its own, as the measuring one sees it.
type Process struct{ *measure.Asked }

// Start starts a balancer in the host. The program has to have [Command].
func Start(host *netlab.Host, program string, opt Options) (*Process, error) {
	p, err := measure.StartAsked(host, exec.Command(program, "perf", commandName), opt)
	if err != nil {
		return nil, fmt.Errorf("start balancer: %w", err)
	}
	return &Process{p}, nil
}

func (p *Process) ask(question string, v any) error { return p.Ask(context.Background(), question, v) }

// Status is [Balancer.Status].
func (p *Process) Status() (s Status, err error) {
	err = p.ask(askStatus, &s)
	return s, err
}

// Known is [Balancer.Known].
func (p *Process) Known() (k Known, err error) {
	err = p.ask(askKnown, &k)
	return k, err
}

// Drain is [Balancer.Drain]. The worker knows when it returns.
func (p *Process) Drain() error { return p.ask(askDrain, new(Status)) }

// Lost is [Balancer.Lost].
func (p *Process) Lost() (l Loss, err error) {
	err = p.ask(askLost, &l)
	return l, err
}

// Stop ends the balancer.
func (p *Process) Stop() error { return p.Asked.Stop(measure.StopGrace) }

const commandName = "balancer"

// Command is what Start starts, below a program's command perf.
func Command() *cli.Command {
	return measure.AskedCommand(commandName, func(opt Options, log *slog.Logger) (measure.Server, error) {
		opt.Log = log
		return OpenAlone(opt)
	})
}

// OpenAlone is Open in a process that has nothing else to do: all of it but the
// workers stays off their CPU, as in the appliance.
func OpenAlone(opt Options) (_ *Balancer, err error) {
	if opt.Room, err = affinity.NewRoom(); err != nil {
		return nil, fmt.Errorf("open balancer: %w", err)
	}
	return Open(opt)
}

// Answer implements [measure.Server].
func (b *Balancer) Answer(ctx context.Context, question string) (any, error) {
	switch question {
	case askStatus:
		return b.Status(ctx)
	case askKnown:
		return b.Known(ctx)
	case askDrain:
		if err := b.Drain(ctx); err != nil {
			return nil, err
		}
		return b.Status(ctx) // answered when the worker knows
	case askLost:
		return b.Lost(ctx)
	}
	return nil, measure.ErrNoQuestion
}
