package perf

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/loops"
	"weir/perf/measure"
)

// loopProcess is a loop, which writes a loops.Counters after SIGTERM.
type loopProcess struct{ *measure.Child }

func startLoop(host *netlab.Host, opt *Options, kind loops.Kind, task loops.Task) (*loopProcess, error) {
	c, err := measure.StartChild(host, exec.Command(opt.Program, "perf", "loop",
		"--kind", string(kind), "--task", string(task), "--interface", loopName, "--cpu", strconv.Itoa(opt.CPUs[1]), "--ring", strconv.Itoa(opt.Ring)))
	return &loopProcess{c}, err
}

// stop ends the loop and returns what it has counted.
func (l *loopProcess) stop() (c loops.Counters, err error) {
	if err := l.Process.Signal(syscall.SIGTERM); err != nil {
		return c, err
	}
	if err := l.Read(&c); err != nil {
		return c, err
	}
	return c, l.Process.Wait()
}

// loopCommand is what startLoop starts.
func loopCommand() *cli.Command {
	return &cli.Command{
		Name:   "loop",
		Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kind", Required: true},
			&cli.StringFlag{Name: "task", Required: true},
			&cli.StringFlag{Name: "interface", Required: true},
			&cli.IntFlag{Name: "cpu", Required: true},
			&cli.IntFlag{Name: "ring", Required: true},
		},
		Action: func(c *cli.Context) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			output := json.NewEncoder(os.Stdout)
			counters, err := loops.Run(ctx, loops.Options{
				Kind:      loops.Kind(c.String("kind")),
				Task:      loops.Task(c.String("task")),
				Interface: c.String("interface"),
				CPU:       c.Int("cpu"),
				Ring:      c.Int("ring"),
			}, func(thread int) { _ = output.Encode(measure.Started{Threads: []int{thread}}) }) // nobody listens: SIGTERM is next
			if err != nil {
				return err
			}
			return output.Encode(counters)
		},
	}
}
