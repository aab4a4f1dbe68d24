package balancer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// What a balancer's process can be asked for, a line each on its standard
// input, at whose end it ends.
const (
	askStatus = "status" // a Status
	askKnown  = "known"  // a Known
	askDrain  = "drain"  // a Status
	askLost   = "lost"   // a Loss
)

// Process is a Balancer in a process of its own, as the measuring one sees it.
type Process struct {
	*measure.Child
	input io.WriteCloser
}

// Start starts a balancer in the host. The program has to have [Command].
func Start(host *netlab.Host, program string, opt Options) (*Process, error) {
	arg, err := json.Marshal(opt)
	if err != nil {
		return nil, fmt.Errorf("start balancer: %w", err)
	}
	cmd := exec.Command(program, "perf", commandName, string(arg))
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start balancer: %w", err)
	}
	c, err := measure.StartChild(host, cmd)
	if err != nil {
		return nil, fmt.Errorf("start balancer: %w", err)
	}
	return &Process{c, input}, nil
}

// ask reads the answer to one of the above into v.
func (p *Process) ask(question string, v any) error {
	if _, err := fmt.Fprintln(p.input, question); err != nil {
		return fmt.Errorf("ask balancer: %w", err)
	}
	return p.Read(v)
}

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
func (p *Process) Stop() error { return errors.Join(p.input.Close(), p.Process.Wait()) }

const commandName = "balancer"

// Command is what Start starts, below a program's command perf.
func Command() *cli.Command {
	return &cli.Command{
		Name:   commandName,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var opt Options
			if err := json.Unmarshal([]byte(c.Args().First()), &opt); err != nil {
				return fmt.Errorf("run balancer: options: %w", err)
			}
			opt.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
			b, err := Open(opt)
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(c.Context)
			ended := make(chan error, 1)
			go func() {
				ended <- b.Run(ctx)
				stop() // whoever waits for an answer
			}()
			err = answer(ctx, b, os.Stdin, json.NewEncoder(os.Stdout))
			stop()
			return errors.Join(err, <-ended)
		},
	}
}

// patience is how long a worker may take to answer.
const patience = 10 * time.Second

// answer answers what is asked until there is nothing more.
func answer(ctx context.Context, b *Balancer, questions io.Reader, answers *json.Encoder) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	threads, err := b.Threads(within)
	if err != nil {
		return err
	}
	if err := answers.Encode(measure.Started{Threads: threads}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(questions); lines.Scan(); {
		v, err := answerTo(ctx, b, lines.Text())
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if err := answers.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

func answerTo(ctx context.Context, b *Balancer, question string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
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
	return nil, errors.New("no such question")
}
