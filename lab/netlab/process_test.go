package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// helperVar makes the test program play a lab that dies without cleaning up.
const helperVar = "NETLAB_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVar) != "" {
		if err := abandonedLab(); err != nil {
			fmt.Println("helper:", err)
			os.Exit(1)
		}
		select {}
	}
	os.Exit(m.Run())
}

// abandonedLab makes a lab with a process in it and prints the process's pid
// and the namespace.
func abandonedLab() error {
	lab, err := New("abandoned")
	if err != nil {
		return err
	}
	h, err := lab.Host("h")
	if err != nil {
		return err
	}
	p, err := h.Start(exec.Command("sleep", "1000"))
	if err != nil {
		return err
	}
	fmt.Println(p.PID(), h.Namespace())
	return nil
}

// gone tells whether a process has ended, reaped or not.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestCloseLeavesNothing(t *testing.T) {
	labtest.NeedRoot(t)
	lab := must(New("closing"))(t)
	defer lab.Close()
	a, _ := pair(t, lab)
	// A child of the child dies too; the trap is there to be ignored.
	p := must(a.Start(exec.Command("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait")))(t)
	eventually(t, "printed", func() bool { return strings.HasSuffix(p.Output(), "\n") })
	grandchild := must(strconv.Atoi(strings.TrimSpace(p.Output())))(t)
	if gone(p.PID()) || gone(grandchild) {
		t.Fatal("processes have ended by themselves")
	}
	for range 2 {
		check(t, lab.Close())
	}
	eventually(t, "killed", func() bool { return gone(p.PID()) && gone(grandchild) })
	left := must(filepath.Glob(filepath.Join(directory, lab.prefix+"*")))(t)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	_, err := lab.Host("c")
	for name, err := range map[string]error{
		"host": err,
		"do":   a.Do(func() error { return nil }),
		"link": a.LinkDown("eth0"),
		"ping": ping(a, "127.0.0.1"),
		"run":  func() error { _, err := a.Run(t.Context(), "true"); return err }(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
}

func TestSweepAndParentDeath(t *testing.T) {
	lab := newLab(t)
	alive := must(lab.Host("alive"))(t)
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperVar+"=1")
	out := must(helper.StdoutPipe())(t)
	check(t, helper.Start())
	var child int
	var namespace string
	_, err := fmt.Fscan(out, &child, &namespace)
	if err != nil {
		_ = helper.Process.Kill()
		t.Fatal(err)
	}
	path := filepath.Join(directory, namespace)
	must(Sweep())(t)
	if _, err := os.Stat(path); err != nil {
		t.Error("sweep removed the namespace of a living lab")
	}
	check(t, helper.Process.Kill())
	defer func() { _ = helper.Wait() }() // it is a zombie until then
	eventually(t, "killed by the kernel", func() bool { return gone(helper.Process.Pid) && gone(child) })

	plain := filepath.Join(directory, fmt.Sprintf("weir-abandoned-%d-halfmade", helper.Process.Pid))
	check(t, os.WriteFile(plain, nil, 0o444))
	removed := must(Sweep())(t)
	for _, gone := range []string{path, plain} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v; removed %v", gone, err, removed)
			_ = unix.Unmount(gone, unix.MNT_DETACH)
			_ = os.Remove(gone)
		}
	}
	if len(removed) < 2 {
		t.Errorf("removed %v", removed)
	}
	reach(t, alive, "127.0.0.1")
}

func TestProcess(t *testing.T) {
	lab := newLab(t)
	h := must(lab.Host("h"))(t)
	// What it sees is the host's, in /proc and in /sys.
	out := must(h.Run(t.Context(), "sh", "-c", "ls /sys/class/net; readlink /proc/self/ns/net"))(t)
	var inside string
	check(t, h.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}))
	for _, want := range []string{"lo\n", inside} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
	if strings.Contains(out, "eth0") {
		t.Errorf("the machine's interfaces are visible: %q", out)
	}
	out = string(must(exec.Command("ip", "netns", "exec", h.Namespace(), "readlink", "/proc/self/ns/net").Output())(t))
	if strings.TrimSpace(out) != inside {
		t.Errorf("ip netns exec is in %s, not in %s", out, inside)
	}

	p := must(h.Start(exec.Command("sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")))(t)
	eventually(t, "ready", func() bool { return p.Output() != "" })
	check(t, p.Stop(time.Minute))
	if got := p.Output(); got != "ready\nbye\n" {
		t.Errorf("output %q", got)
	}
	check(t, p.Signal(unix.SIGTERM)) // has ended: no error
	check(t, p.Wait())

	p = must(h.Start(exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done")))(t)
	eventually(t, "ready", func() bool { return p.Output() != "" })
	if err := p.Stop(time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("stop of one that will not: %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var out tail
	for i := range 3 * outputKept / 10 {
		fmt.Fprintf(&out, "%9d\n", i)
	}
	got := out.String()
	if len(got) < outputKept || len(got) > 2*outputKept {
		t.Errorf("%d bytes are kept", len(got))
	}
	if want := fmt.Sprintf("%9d\n", 3*outputKept/10-1); !strings.HasSuffix(got, want) {
		t.Errorf("ends with %q", got[len(got)-20:])
	}
}
