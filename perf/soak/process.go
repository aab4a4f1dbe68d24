package soak

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
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// What a plane's process can be asked for, a line each on its standard input, at
// whose end it ends. The answer is a Sample.
const (
	askSample = "sample"
	askTurn   = "turn" // and has applied the next snapshot before
)

// process is a plane in a process of its own, so that what it takes can be told
// from what the measuring takes.
type process struct {
	*measure.Child
	input io.WriteCloser
}

func start(host *netlab.Host, program string, opt planeOptions) (*process, error) {
	arg, err := json.Marshal(opt)
	if err != nil {
		return nil, fmt.Errorf("start data plane: %w", err)
	}
	cmd := exec.Command(program, "perf", planeName, string(arg))
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start data plane: %w", err)
	}
	c, err := measure.StartChild(host, cmd)
	if err != nil {
		return nil, fmt.Errorf("start data plane: %w", err)
	}
	return &process{c, input}, nil
}

// ask reads the answer to one of the above into s.
func (p *process) ask(question string, s *Sample) error {
	if _, err := fmt.Fprintln(p.input, question); err != nil {
		return fmt.Errorf("ask data plane: %w", err)
	}
	return p.Read(s)
}

func (p *process) stop() error { return errors.Join(p.input.Close(), p.Process.Wait()) }

const planeName = "soak-plane"

// PlaneCommand is what Run starts, below a program's command perf.
func PlaneCommand() *cli.Command {
	return &cli.Command{
		Name:   planeName,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var opt planeOptions
			if err := json.Unmarshal([]byte(c.Args().First()), &opt); err != nil {
				return fmt.Errorf("run data plane: options: %w", err)
			}
			p, err := openPlane(opt, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
			if err != nil {
				return fmt.Errorf("run data plane: %w", err)
			}
			ctx, stop := context.WithCancel(c.Context)
			ended := make(chan error, 1)
			go func() {
				ended <- p.run(ctx)
				stop() // whoever waits for an answer
			}()
			err = p.answer(ctx, os.Stdin, json.NewEncoder(os.Stdout))
			stop()
			return errors.Join(err, <-ended)
		},
	}
}

// patience is how long a worker may take to answer.
const patience = 10 * time.Second

// answer answers what is asked until there is nothing more.
func (p *plane) answer(ctx context.Context, questions io.Reader, answers *json.Encoder) error {
	var started measure.Started
	for _, w := range p.engine.Workers() {
		within, cancel := context.WithTimeout(ctx, patience)
		err := w.Do(within, func() { started.Threads = append(started.Threads, unix.Gettid()) })
		cancel()
		if err != nil {
			return err
		}
	}
	if err := answers.Encode(started); err != nil {
		return err
	}
	for lines := bufio.NewScanner(questions); lines.Scan(); {
		s, err := p.answerTo(ctx, lines.Text())
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if err := answers.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

func (p *plane) answerTo(ctx context.Context, question string) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch question {
	case askTurn:
		if err := p.turn(); err != nil {
			return Sample{}, err
		}
	case askSample:
	default:
		return Sample{}, errors.New("no such question")
	}
	return p.sample(ctx)
}
