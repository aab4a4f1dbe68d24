package demo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// programs builds weir and weirlab, which are tested as a user runs them.
func programs(t *testing.T) (dir string) {
	t.Helper()
	labtest.NeedRoot(t)
	if testing.Short() {
		t.Skip("takes the time that a demo takes")
	}
	dir = t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "weir/cmd/weir", "weir/cmd/weirlab")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// running is a demo that runs.
type running struct {
	cmd *exec.Cmd
	dir string // of the programs

	mu     sync.Mutex
	output bytes.Buffer
	lines  chan string // of standard output; closed at its end
}

// start starts a demo, and sees to it that at the end of the test nothing of it
// is there any more.
func start(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	r := &running{dir: dir, lines: make(chan string, 10000)}
	args = append([]string{"demo", "--weir", filepath.Join(dir, "weir")}, args...)
	r.cmd = exec.Command(filepath.Join(dir, "weirlab"), args...)
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("output:\n%s", r)
		}
	})
	go func() {
		defer close(r.lines)
		scanner := bufio.NewScanner(io.TeeReader(stdout, r))
		for scanner.Scan() {
			r.lines <- scanner.Text()
		}
	}()
	return r
}

func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.Write(b)
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.String()
}

// await reads on until a line with the text.
func (r *running) await(t *testing.T, text string) {
	t.Helper()
	for line := range r.lines {
		if strings.Contains(line, text) {
			return
		}
	}
	t.Fatalf("ended without saying %q", text)
}

// exit waits for the end and returns the exit status, -1 for a signal.
func (r *running) exit(t *testing.T) int {
	t.Helper()
	for range r.lines {
	}
	err := r.cmd.Wait()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// processes returns the pids of all programs from the directory but the demo
// itself, with their arguments.
func (r *running) processes(t *testing.T) map[int]string {
	t.Helper()
	found := make(map[int]string)
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil || filepath.Dir(target) != r.dir || pid == r.cmd.Process.Pid {
			continue
		}
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		found[pid] = strings.ReplaceAll(string(args), "\x00", " ")
	}
	return found
}

// namespaces returns those of this demo.
func (r *running) namespaces(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/run/netns/weir-%s-%d-*", LabName, r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkNothingLeft fails the test if the demo, which has ended, left anything.
func (r *running) checkNothingLeft(t *testing.T) {
	t.Helper()
	if left := r.namespaces(t); len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
	if left := r.processes(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	if config := r.config(); config != "" {
		if _, err := os.Stat(labDir(config)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", labDir(config), err)
		}
	}
}

// config returns the path of the configuration that the demo has told, "" if it
// has told none.
func (r *running) config() string {
	_, rest, _ := strings.Cut(r.String(), "Configuration of lb1, ")
	path, _, _ := strings.Cut(rest, ":")
	return path
}

// labDir is where the demo has its files, of which config is one of a weir.
func labDir(config string) string { return filepath.Dir(filepath.Dir(config)) }

// inside returns the processes in the demo's namespaces with their arguments,
// those of the router's daemons among them.
func (r *running) inside(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, ns := range r.namespaces(t) {
		pids, err := exec.Command("ip", "netns", "pids", filepath.Base(ns)).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range strings.Fields(string(pids)) {
			args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if args := strings.ReplaceAll(string(args), "\x00", " "); pid != strconv.Itoa(r.cmd.Process.Pid) {
				found[pid] = args
			}
		}
	}
	return found
}

// TestDemo shows the demo in full.
func TestDemo(t *testing.T) {
	r := start(t, programs(t), "--duration", MinDuration.String())
	if status := r.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	for _, text := range []string{
		"AF_", "backend b2 stopped", "both weirs noticed after", "health check: ", "the weirs give b2 new requests again",
		"weir lb1 is killed", "the router has taken lb1 out after", "spreads connections over both again", "40 of 40 connections outlived it", "PASSED: ",
	} {
		if !strings.Contains(r.String(), text) {
			t.Errorf("does not say %q", text)
		}
	}
	if r.config() == "" {
		t.Error("does not tell where the configuration is")
	}
	if strings.Contains(r.String(), "\x1b") {
		t.Error("escape sequences though there is no terminal")
	}
	r.checkNothingLeft(t)
}

// TestInterrupt sends signals at different moments.
func TestInterrupt(t *testing.T) {
	dir := programs(t)
	for _, test := range []struct {
		at     string
		signal unix.Signal
	}{
		{"Building", unix.SIGINT},
		{"Configuration of lb1", unix.SIGTERM},
		{"backend b2 stopped", unix.SIGINT},
	} {
		t.Run(test.at, func(t *testing.T) {
			r := start(t, dir, "--duration", MinDuration.String())
			r.await(t, test.at)
			for range 2 { // the second one changes nothing
				if err := r.cmd.Process.Signal(test.signal); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			if status := r.exit(t); status != 130 || !strings.Contains(r.String(), "interrupted") {
				t.Errorf("exit status %d", status)
			}
			r.checkNothingLeft(t)
		})
	}
}

// TestWeirDies kills both weirs behind the demo's back, which it must not survive.
func TestWeirDies(t *testing.T) {
	r := start(t, programs(t), "--duration", MinDuration.String())
	r.await(t, "requests to both services")
	killed := 0
	for pid, args := range r.processes(t) {
		if strings.Contains(args, "weir run ") {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed++
		}
	}
	if killed != 2 {
		t.Fatalf("killed %d weirs", killed)
	}
	if status := r.exit(t); status != 1 || !strings.Contains(r.String(), " ended in the middle of the demo") {
		t.Errorf("exit status %d", status)
	}
	r.checkNothingLeft(t)
}

// TestKilled kills the demo itself: its processes have to die with it, and
// sweep has to remove its namespaces.
func TestKilled(t *testing.T) {
	r := start(t, programs(t), "--duration", MinDuration.String())
	r.await(t, "requests to both services")
	left := []string{labDir(r.config())}
	daemons := 0
	for _, args := range r.inside(t) {
		if _, rest, frr := strings.Cut(args, "--vty_socket "); frr {
			left = append(left, strings.Fields(rest)[0])
			daemons++
		}
	}
	if daemons != 2 {
		t.Errorf("the router has %d daemons, want zebra and bgpd", daemons)
	}
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.exit(t)
	t.Cleanup(func() {
		for _, dir := range left {
			_ = os.RemoveAll(dir)
		}
	})
	deadline := time.Now().Add(10 * time.Second)
	for len(r.processes(t))+len(r.inside(t)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("processes live on: %v, %v", r.processes(t), r.inside(t))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(r.namespaces(t)) == 0 {
		t.Error("a demo that was killed left no namespaces, so nothing is tested here")
	}
	out, err := exec.Command(filepath.Join(r.dir, "weirlab"), "sweep").CombinedOutput()
	if err != nil {
		t.Errorf("sweep: %v: %s", err, out)
	}
	if left := r.namespaces(t); len(left) > 0 {
		t.Errorf("sweep left %v, and said %s", left, out)
	}
}

// TestKeep looks whether the lab is up after the verdict, and ends it.
func TestKeep(t *testing.T) {
	r := start(t, programs(t), "--duration", MinDuration.String(), "--keep")
	r.await(t, "The lab stays up")
	if len(r.namespaces(t)) == 0 || len(r.processes(t)) == 0 {
		t.Error("the lab is gone")
	}
	if err := r.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if status := r.exit(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	r.checkNothingLeft(t)
}

// TestPorts checks that the client's ports last for the longest demo.
func TestPorts(t *testing.T) {
	const streams = 4
	if need := streams * int(MaxDuration/requestInterval+1); need > ports || firstPort+ports > 1<<16 {
		t.Errorf("%d requests, %d ports from %d on", need, ports, firstPort)
	}
}

// TestNew has what is wrong before anything is built.
func TestNew(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		opt  Options
		want string
	}{
		{Options{Weir: program, Duration: MinDuration - 1}, "duration"},
		{Options{Weir: program, Duration: MaxDuration + 1}, "duration"},
		{Options{Weir: "/nowhere/weir", Duration: MinDuration}, "make build"},
		{Options{Weir: t.TempDir(), Duration: MinDuration}, "make build"},
		{Options{Weir: program, Duration: MinDuration}, ""},
	}
	for _, test := range tests {
		if os.Geteuid() != 0 {
			test.want = "run it as root"
		}
		_, err := New(test.opt)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.opt, err, test.want)
		}
	}
}
