package perf

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
)

// What a balancer's process can be asked for, a line each on its standard
// input, at whose end it ends.
const (
	askStatus = "status" // a balancer.Status
	askKnown  = "known"  // a balancer.Known
	askDrain  = "drain"  // a balancer.Status
	askLost   = "lost"   // a balancer.Loss
)

// balancerProcess is a balancer as the measuring process sees it.
type balancerProcess struct {
	*measure.Child
	input io.WriteCloser
}

func startBalancer(host *netlab.Host, s *measure.Setup, mode balancer.Mode, queues, entries int) (*balancerProcess, error) {
	cmd := exec.Command(s.Program, "perf", "balancer",
		"--mode", string(mode), "--interface", loopName, "--queues", strconv.Itoa(queues), "--cpu", strconv.Itoa(s.CPUs[1]), "--entries", strconv.Itoa(entries))
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start balancer: %w", err)
	}
	c, err := measure.StartChild(host, cmd)
	return &balancerProcess{c, input}, err
}

// ask reads the answer to one of the above into v.
func (b *balancerProcess) ask(question string, v any) error {
	if _, err := fmt.Fprintln(b.input, question); err != nil {
		return fmt.Errorf("ask balancer: %w", err)
	}
	return b.Read(v)
}

// stop ends the balancer and returns what it has counted. Workers are asked one
// after the other, so it waits until none of them does anything any more.
func (b *balancerProcess) stop() (c loops.Counters, err error) {
	err = measure.Settle(context.Background(), func() (loops.Counters, error) {
		var s balancer.Status
		err := b.ask(askStatus, &s)
		c = loops.Counters{
			Received: s.Received, ReceiveDropped: s.ReceiveDropped, Sent: s.Sent, GivenUp: s.TransmitDropped, HandedOver: s.HandedOver,
		}
		return c, err
	})
	return c, errors.Join(err, b.input.Close(), b.Process.Wait())
}

// memory returns how many bytes of the process are in memory.
func (b *balancerProcess) memory() (uint64, error) { return measure.ResidentMemory(b.Process.PID()) }

// balancerCommand is what startBalancer starts.
func balancerCommand() *cli.Command {
	return &cli.Command{
		Name:   "balancer",
		Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "mode", Required: true},
			&cli.StringFlag{Name: "interface", Required: true},
			&cli.IntFlag{Name: "queues", Required: true},
			&cli.IntFlag{Name: "cpu", Required: true},
			&cli.IntFlag{Name: "entries", Required: true},
		},
		Action: func(c *cli.Context) error {
			b, err := balancer.Open(balancer.Options{
				Mode:      balancer.Mode(c.String("mode")),
				Interface: c.String("interface"),
				Queues:    c.Int("queues"),
				CPU:       c.Int("cpu"),
				Entries:   c.Int("entries"),
				Clients:   generator.FlowSources(),
				Log:       slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			})
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
func answer(ctx context.Context, b *balancer.Balancer, questions io.Reader, answers *json.Encoder) error {
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

func answerTo(ctx context.Context, b *balancer.Balancer, question string) (any, error) {
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

// vip is where the balancer's traffic goes.
func vip() netip.AddrPort { return netip.AddrPortFrom(balancer.VIP, sinkPort) }
