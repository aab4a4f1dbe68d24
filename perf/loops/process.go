package loops

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// What a loop's process can be asked for.
const (
	askStatus = "status" // a Status
	askFinish = "finish" // to end the loop, and its Counters
)

// Process is a loop in a process of its own, as the measuring one sees it.
type Process struct{ *measure.Asked }

// Start starts a loop in the host. The program has to have [Command].
func Start(host *netlab.Host, program string, opt Options) (*Process, error) {
	p, err := measure.StartAsked(host, exec.Command(program, "perf", commandName), opt)
	if err != nil {
		return nil, fmt.Errorf("start loop %s: %w", opt.Kind, err)
	}
	return &Process{p}, nil
}

// Status returns what the loop has counted until it answers, which it does when
// it has its core.
func (p *Process) Status() (s Status, err error) {
	err = p.Ask(context.Background(), askStatus, &s)
	return s, err
}

// Stop ends the loop and returns what it has counted.
func (p *Process) Stop() (c Counters, err error) {
	if err := p.Ask(context.Background(), askFinish, &c); err != nil {
		return c, err
	}
	return c, p.Asked.Stop(measure.StopGrace)
}

const commandName = "loop"

// Command is what Start starts, below a program's command perf.
func Command() *cli.Command {
	return measure.AskedCommand(commandName, func(opt Options, _ *slog.Logger) (measure.Server, error) {
		return &server{
			opt: opt, ready: make(chan int, 1), asked: make(chan func(Status)),
			finish: make(chan struct{}), ended: make(chan Counters, 1),
		}, nil
	})
}

// server is a loop that answers.
type server struct {
	opt    Options
	ready  chan int          // its thread
	asked  chan func(Status) // by Run
	finish chan struct{}     // closed to end the loop
	ended  chan Counters     // when it has
}

// Run implements [measure.Server]: when the loop has ended well there is one answer
// left to give.
func (s *server) Run(ctx context.Context) error {
	looping, end := context.WithCancel(ctx)
	defer end()
	go func() {
		select {
		case <-s.finish:
			end()
		case <-looping.Done():
		}
	}()
	counters, err := Run(looping, s.opt, func(thread int) { s.ready <- thread }, s.asked)
	if err != nil {
		return err
	}
	s.ended <- counters
	<-ctx.Done()
	return nil
}

// Threads implements [measure.Server].
func (s *server) Threads(ctx context.Context) ([]int, error) {
	select {
	case thread := <-s.ready:
		return []int{thread}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Answer implements [measure.Server].
func (s *server) Answer(ctx context.Context, question string) (any, error) {
	switch question {
	case askStatus:
		status := make(chan Status, 1)
		select {
		case s.asked <- func(st Status) { status <- st }:
			return <-status, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case askFinish:
		close(s.finish)
		select {
		case counters := <-s.ended:
			return counters, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, measure.ErrNoQuestion
}
