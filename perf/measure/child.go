package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"weir/lab/netlab"
)

// What is measured is a process of its own, so that it begins with nothing of
// the last one's: memory, sockets, garbage. It is told what to do by its
// arguments, and writes a Started to its output, as JSON, and whatever it is
// asked for then.

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
}

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
	if err := c.Read(&s); err != nil {
		return nil, err
	}
	c.threads = s.Threads
	return c, nil
}

// Read reads what the process writes next.
func (c *Child) Read(v any) error {
	if err := c.output.Decode(v); err != nil {
		return fmt.Errorf("what is measured has ended: %w: %s", err, c.Process.Output())
	}
	return nil
}

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
