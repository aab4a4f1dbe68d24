package loops

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// askStatus is what a loop's process can be asked for, a line on its standard
// input. At the end of that it ends, and writes its Counters.
const askStatus = "status" // a Status

// Process is a loop in a process of its own, as the measuring one sees it.
type Process struct {
	*measure.Child
	input io.WriteCloser
}

// Start starts a loop in the host. The program has to have [Command].
func Start(host *netlab.Host, program string, opt Options) (*Process, error) {
	arg, err := json.Marshal(opt)
	if err != nil {
		return nil, fmt.Errorf("start loop: %w", err)
	}
	cmd := exec.Command(program, "perf", commandName, string(arg))
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start loop: %w", err)
	}
	c, err := measure.StartChild(host, cmd)
	if err != nil {
		return nil, fmt.Errorf("start loop %s: %w", opt.Kind, err)
	}
	return &Process{c, input}, nil
}

// Status returns what the loop has counted until it answers, which it does when
// it has its core.
func (p *Process) Status() (s Status, err error) {
	if _, err := fmt.Fprintln(p.input, askStatus); err != nil {
		return s, fmt.Errorf("ask loop: %w", err)
	}
	err = p.Read(&s)
	return s, err
}

// Stop ends the loop and returns what it has counted.
func (p *Process) Stop() (c Counters, err error) {
	if err := p.input.Close(); err != nil {
		return c, fmt.Errorf("stop loop: %w", err)
	}
	if err := p.Read(&c); err != nil {
		return c, err
	}
	return c, p.Process.Wait()
}

const commandName = "loop"

// Command is what Start starts, below a program's command perf.
func Command() *cli.Command {
	return &cli.Command{
		Name:   commandName,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var opt Options
			if err := json.Unmarshal([]byte(c.Args().First()), &opt); err != nil {
				return fmt.Errorf("run loop: options: %w", err)
			}
			return serve(c.Context, opt, os.Stdin, json.NewEncoder(os.Stdout))
		},
	}
}

// serve runs a loop and answers what is asked until there is nothing more.
func serve(ctx context.Context, opt Options, questions io.Reader, answers *json.Encoder) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var counters Counters
	ready, asked, ended := make(chan int, 1), make(chan func(Status)), make(chan error, 1)
	go func() {
		var err error
		counters, err = Run(ctx, opt, func(thread int) { ready <- thread }, asked)
		ended <- err
		stop() // whoever waits for an answer
	}()
	err := answer(ctx, ready, asked, questions, answers)
	stop()
	if err := errors.Join(<-ended, err); err != nil {
		return err
	}
	return answers.Encode(counters)
}

// answer answers until there are no questions any more, or ctx ends.
func answer(ctx context.Context, ready <-chan int, asked chan<- func(Status), questions io.Reader, answers *json.Encoder) error {
	select {
	case thread := <-ready:
		if err := answers.Encode(measure.Started{Threads: []int{thread}}); err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	status := make(chan Status, 1)
	for lines := bufio.NewScanner(questions); lines.Scan(); {
		if lines.Text() != askStatus {
			return fmt.Errorf("%s: no such question", lines.Text())
		}
		select {
		case asked <- func(s Status) { status <- s }:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := answers.Encode(<-status); err != nil {
			return err
		}
	}
	return nil
}
