package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/lab/netlab"
)

// What is measured is a process of its own, so that it begins with nothing of
// the last one's: memory, sockets, garbage. It is told what to do by its
// arguments, and writes a Started to its output, as JSON, and whatever it is
// asked for then.

// ServeChild makes a program one that has children: if its arguments are those of
// one of these commands below the command perf, it runs that and ends. It is for
// the main function of tests, whose program starts itself.
func ServeChild(commands ...*cli.Command) {
	if len(os.Args) < 2 || os.Args[1] != "perf" {
		return
	}
	app := &cli.App{Name: "test", Commands: []*cli.Command{{Name: "perf", Subcommands: commands}}}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Started is what a child writes first.
type Started struct {
	Threads []int `json:"threads"` // that are measured
}

// Child is such a process as the measuring one sees it.
type Child struct {
	// Process is the caller's to signal and wait for.
	Process *netlab.Process
	output  *json.Decoder
	threads []int
	killed  bool // for it did not answer
}

// How long a child may take, on a machine that has other work as well. One that
// takes longer is killed: it hangs, and nobody would end it.
const (
	startWithin  = time.Minute  // its tables may be large
	answerWithin = 2 * patience // more than it gives itself
)

// StartChild starts a command and waits until it works.
func StartChild(host *netlab.Host, cmd *exec.Cmd) (*Child, error) {
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
	c := &Child{Process: process, output: json.NewDecoder(reader)}
	var s Started
	if err := c.read(context.Background(), startWithin, &s); err != nil {
		return nil, err
	}
	c.threads = s.Threads
	return c, nil
}

// read reads what the process writes next. It kills one that does not in good time.
func (c *Child) read(ctx context.Context, within time.Duration, v any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	decoded := make(chan error, 1)
	go func() { decoded <- c.output.Decode(v) }()
	select {
	case err := <-decoded:
		if err != nil {
			return fmt.Errorf("what is measured has ended: %w: %s", err, c.Process.Output())
		}
		return nil
	case <-ctx.Done():
		// What it still wrote would be taken for the answer to another question.
		c.kill()
		c.killed = true
		<-decoded
		return fmt.Errorf("what is measured does not answer: %w: %s", ctx.Err(), c.Process.Output())
	}
}

// kill ends a process without giving it the time to do so by itself.
func (c *Child) kill() { _ = c.Process.Stop(0) } // an error says that it was killed

// Time returns how long the process's threads have run in all, and how long
// they have waited.
func (c *Child) Time() (sum ThreadTime, err error) {
	for _, thread := range c.threads {
		t, err := ReadThread(c.Process.PID(), thread)
		if err != nil {
			return sum, err
		}
		sum.Ran += t.Ran
		sum.Waited += t.Waited
	}
	return sum, nil
}

// Ticks returns how the run time of the process's threads divides.
func (c *Child) Ticks() (sum Ticks, err error) {
	for _, thread := range c.threads {
		t, err := ReadTicks(fmt.Sprintf("/proc/%d/task/%d/stat", c.Process.PID(), thread))
		if err != nil {
			return sum, err
		}
		sum.User += t.User
		sum.Kernel += t.Kernel
	}
	return sum, nil
}

// Memory returns how many bytes of the process are in memory.
func (c *Child) Memory() (uint64, error) { return ResidentMemory(c.Process.PID()) }

// ResidentMemory returns how many bytes of a process are in memory
// (Documentation/filesystems/proc.rst, VmRSS).
func ResidentMemory(pid int) (uint64, error) {
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
