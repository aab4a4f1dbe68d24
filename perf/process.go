package perf

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/loops"
)

// A loop is a process of its own, so that it begins with nothing of the last
// one's: memory, sockets, garbage. It is told what to do by its arguments,
// writes a started and, after SIGTERM, a loops.Counters to its output.

type started struct {
	Thread int `json:"thread"`
}

// loopProcess is a loop as the measuring process sees it.
type loopProcess struct {
	process *netlab.Process
	output  *json.Decoder
	thread  int
}

// startLoop starts a loop and waits until it works.
func startLoop(host *netlab.Host, opt *Options, kind loops.Kind, task loops.Task) (*loopProcess, error) {
	cmd := exec.Command(opt.Program, "perf", "loop",
		"--kind", string(kind), "--task", string(task), "--interface", loopName, "--cpu", strconv.Itoa(opt.CPUs[1]), "--ring", strconv.Itoa(opt.Ring))
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	process, err := host.Start(cmd)
	if err != nil {
		return nil, err
	}
	go func() {
		<-process.Done()
		writer.Close()
	}()
	l := &loopProcess{process: process, output: json.NewDecoder(reader)}
	var s started
	if err := l.output.Decode(&s); err != nil {
		return nil, l.failed(err)
	}
	l.thread = s.Thread
	return l, nil
}

// stop ends the loop and returns what it has counted.
func (l *loopProcess) stop() (c loops.Counters, err error) {
	if err := l.process.Signal(syscall.SIGTERM); err != nil {
		return c, err
	}
	if err := l.output.Decode(&c); err != nil {
		return c, l.failed(err)
	}
	return c, l.process.Wait()
}

// failed says why a loop has written nothing.
func (l *loopProcess) failed(err error) error {
	return fmt.Errorf("loop has ended: %w: %s", err, l.process.Output())
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
			}, func(thread int) { _ = output.Encode(started{thread}) }) // nobody listens: SIGTERM is next
			if err != nil {
				return err
			}
			return output.Encode(counters)
		},
	}
}
