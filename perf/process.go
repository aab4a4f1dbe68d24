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
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
	"weir/perf/loops"
)

// What is measured is a process of its own, so that it begins with nothing of
// the last one's: memory, sockets, garbage. It is told what to do by its
// arguments, and writes a started to its output, as JSON, and whatever it is
// asked for then.

type started struct {
	Threads []int `json:"threads"` // that are measured
}

// child is such a process as the measuring one sees it.
type child struct {
	process *netlab.Process
	output  *json.Decoder
	threads []int
}

// startChild starts a command and waits until it works.
func startChild(host *netlab.Host, cmd *exec.Cmd) (*child, error) {
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
	c := &child{process: process, output: json.NewDecoder(reader)}
	var s started
	if err := c.read(&s); err != nil {
		return nil, err
	}
	c.threads = s.Threads
	return c, nil
}

// read reads what the process writes next.
func (c *child) read(v any) error {
	if err := c.output.Decode(v); err != nil {
		return fmt.Errorf("what is measured has ended: %w: %s", err, c.process.Output())
	}
	return nil
}

// time returns how long the process's threads have run in all, and how long
// they have waited.
func (c *child) time() (sum threadTime, err error) {
	for _, thread := range c.threads {
		t, err := readThread(c.process.PID(), thread)
		if err != nil {
			return sum, err
		}
		sum.ran += t.ran
		sum.waited += t.waited
	}
	return sum, nil
}

// residentMemory returns how many bytes of a process are in memory
// (Documentation/filesystems/proc.rst, VmRSS).
func residentMemory(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	status, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib uint64
			_, err := fmt.Sscanf(value, "%d kB", &kib)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read memory: no VmRSS in %s", path)
}

// loopProcess is a loop, which writes a loops.Counters after SIGTERM.
type loopProcess struct{ *child }

func startLoop(host *netlab.Host, opt *Options, kind loops.Kind, task loops.Task) (*loopProcess, error) {
	c, err := startChild(host, exec.Command(opt.Program, "perf", "loop",
		"--kind", string(kind), "--task", string(task), "--interface", loopName, "--cpu", strconv.Itoa(opt.CPUs[1]), "--ring", strconv.Itoa(opt.Ring)))
	return &loopProcess{c}, err
}

// stop ends the loop and returns what it has counted.
func (l *loopProcess) stop() (c loops.Counters, err error) {
	if err := l.process.Signal(syscall.SIGTERM); err != nil {
		return c, err
	}
	if err := l.read(&c); err != nil {
		return c, err
	}
	return c, l.process.Wait()
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
			}, func(thread int) { _ = output.Encode(started{[]int{thread}}) }) // nobody listens: SIGTERM is next
			if err != nil {
				return err
			}
			return output.Encode(counters)
		},
	}
}
