package clab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/lab/labtest"
)

// makerVar makes the test program deploy the file that it names and run a check
// script, and then wait to be killed.
const makerVar = "CLAB_TEST_MAKER"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == PartCommand {
		os.Exit(Part(os.Args[2:]))
	}
	if file := os.Getenv(makerVar); file != "" {
		fmt.Println(abandoned(file))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func abandoned(file string) error {
	t, err := Read(file)
	if err != nil {
		return err
	}
	l, err := Deploy(context.Background(), t, Options{Out: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Println(l.Dir())
	return l.Check(context.Background(), CheckScript(file), os.Stdout)
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what is sure to come, however slow the machine is.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not %s within a minute", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// copied returns the path of a copy of a file in testdata, with the folder beside
// it, that may be written to.
func copied(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.CopyFS(dir, os.DirFS("testdata")))
	return filepath.Join(dir, file)
}

// deployed returns a lab that goes with the test.
func deployed(t *testing.T, topology *Topology, opt Options) *Lab {
	t.Helper()
	labtest.NeedRoot(t)
	l, err := Deploy(t.Context(), topology, opt)
	check(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// parsed returns the topology of a text. Its name has to be one of the test's own.
func parsed(t *testing.T, file string) *Topology {
	t.Helper()
	return must(Parse(filepath.Join(t.TempDir(), "f.clab.yml"), []byte(file), nothing))(t)
}

// run runs a command in a node and returns its output without the last newline.
func run(t *testing.T, l *Lab, node string, command ...string) string {
	t.Helper()
	out, err := l.Exec(t.Context(), node, command...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// processes returns the processes of the machine that have a word in their
// command lines.
func processes(t *testing.T, word string) []int {
	t.Helper()
	var found []int
	for _, path := range must(filepath.Glob("/proc/[0-9]*/cmdline"))(t) {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // has ended
		}
		if pid := must(strconv.Atoi(strings.Split(path, "/")[2]))(t); strings.Contains(string(line), word) && pid != os.Getpid() {
			found = append(found, pid)
		}
	}
	return found
}

// childrenOf returns the processes that have that parent (proc_pid_stat(5)).
func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	var found []int
	for _, path := range must(filepath.Glob("/proc/[0-9]*/stat"))(t) {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // has ended
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			found = append(found, must(strconv.Atoi(strings.Split(path, "/")[2]))(t))
		}
	}
	return found
}

// alive tells whether a process has not ended; a zombie has.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z")
}

// output is a buffer for several writers.
type output struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// nothingLeft checks that there is nothing of a lab any more.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if left := must(filepath.Glob("/run/netns/" + filepath.Base(dir) + "-*"))(t); len(left) > 0 {
		t.Errorf("namespaces are left: %q", left)
	}
}
