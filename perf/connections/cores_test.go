package connections

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// allowedCPU returns the first CPU that the test may run on.
func allowedCPU(t *testing.T) int {
	t.Helper()
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	return cpu
}

// What comes to the balancer is received by a thread that goes before all others
// of its CPU, and what it sends by one that goes before none; frames from the one
// to the other take time of both.
func TestCores(t *testing.T) {
	labtest.NeedRoot(t)
	r := &rig{}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.build(Direct); err != nil {
		t.Fatal(err)
	}
	cpu := allowedCPU(t)
	c, err := newCores(t.Context(), r.balancer, r.sw, cpu, cpu)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		port   port
		policy uint32
	}{{c.balancer, unix.SCHED_FIFO}, {c.switchs, unix.SCHED_BATCH}} {
		for _, tid := range test.port.threads {
			name, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/comm")
			if err != nil || !strings.HasPrefix(string(name), "napi/"+test.port.name+"-") {
				t.Errorf("thread %d of %s is %s, %v", tid, test.port.name, name, err)
			}
			attr, err := unix.SchedGetAttr(tid, 0)
			if err != nil || attr.Policy != test.policy {
				t.Errorf("thread of %s has %+v, %v, want policy %d", test.port.name, attr, err, test.policy)
			}
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(tid, &set); err != nil || set.Count() != 1 || !set.IsSet(cpu) {
				t.Errorf("thread of %s may run on %v, %v", test.port.name, set, err)
			}
		}
		if len(test.port.threads) != 1 {
			t.Errorf("%s has %d threads, and one queue", test.port.name, len(test.port.threads))
		}
	}
	before, err := c.usage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := r.client.DialContext(t.Context(), "udp", own.String()+":9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 100 { // nobody listens: the balancer answers each with an ICMP error
		_, _ = conn.Write([]byte("hello"))
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		after, err := c.usage(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		used := after.since(before)
		if used.process > 0 && used.kernel > 0 && used.delivery > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("used %+v", used)
		}
	}
}

// All threads of a process are pinned, and those it starts later.
func TestPin(t *testing.T) {
	cpu := allowedCPU(t)
	// A shell that starts a child when it is told to.
	cmd := exec.Command("sh", "-c", "read go; grep Cpus_allowed_list /proc/self/status")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd.Stdout = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := pin(cmd.Process.Pid, cpu); err != nil {
		t.Error(err)
	}
	if _, err := input.Write([]byte("go\n")); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(output.String()); len(fields) != 2 || fields[1] != strconv.Itoa(cpu) {
		t.Errorf("pinned to cpu %d, it may run on %q", cpu, output.String())
	}
	if err := pin(cmd.Process.Pid, cpu); err == nil {
		t.Error("a process that has ended can be pinned")
	}
}

// A CPU's idle time grows by no more than time passes.
func TestReadIdle(t *testing.T) {
	start := time.Now()
	before, err := readIdle(0)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	after, err := readIdle(0)
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	if d := after - before; before == 0 || d < 0 || d > time.Since(start)+2*tick {
		t.Errorf("idle from %v to %v within %v", before, after, time.Since(start))
	}
	if _, err := readIdle(9999); err == nil {
		t.Error("there is a cpu 9999")
	}
}
