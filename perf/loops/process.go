package loops

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// Process is a loop in a process of its own, as the measuring one sees it.
type Process struct{ *measure.Child }

// Start starts a loop in the host. The program has to have [Command].
func Start(host *netlab.Host, program string, opt Options) (*Process, error) {
	arg, err := json.Marshal(opt)
	if err != nil {
		return nil, fmt.Errorf("start loop: %w", err)
	}
	c, err := measure.StartChild(host, exec.Command(program, "perf", commandName, string(arg)))
	if err != nil {
		return nil, fmt.Errorf("start loop %s: %w", opt.Kind, err)
	}
	return &Process{c}, nil
}

// Stop ends the loop and returns what it has counted.
func (p *Process) Stop() (c Counters, err error) {
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		return c, err
	}
	if err := p.Read(&c); err != nil {
		return c, err
	}
	return c, p.Process.Wait()
}

const commandName = "loop"

// Command is what Start starts, below a program's command perf. It writes its
// Counters after SIGTERM.
func Command() *cli.Command {
	return &cli.Command{
		Name:   commandName,
		Hidden: true,
		Action: func(c *cli.Context) error {
			var opt Options
			if err := json.Unmarshal([]byte(c.Args().First()), &opt); err != nil {
				return fmt.Errorf("run loop: options: %w", err)
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			output := json.NewEncoder(os.Stdout)
			counters, err := Run(ctx, opt, func(thread int) {
				_ = output.Encode(measure.Started{Threads: []int{thread}}) // nobody listens: SIGTERM is next
			})
			if err != nil {
				return err
			}
			return output.Encode(counters)
		},
	}
}
