package measure

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// lockPath is where a process that a test has started is told of its lock.
const lockPath = "TEST_LOCK_PATH"

// locker is another process that takes a lock.
type locker struct {
	cmd   *exec.Cmd
	input io.Closer // it ends with that
	says  string    // what has come of it
}

func startLocker(t *testing.T, path string) *locker {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLocker$")
	cmd.Env = append(os.Environ(), lockPath+"="+path)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return &locker{cmd, input, strings.TrimSpace(line)}
}

func (l *locker) stop() {
	l.input.Close()
	_ = l.cmd.Wait() // its output is closed before it could say that it has passed
}

// TestLocker is what a locker runs, and nothing otherwise.
func TestLocker(t *testing.T) {
	path := os.Getenv(lockPath)
	if path == "" {
		t.Skip("only another test's process does something")
	}
	fmt.Println(alone(path, false))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// One process at a time is alone, as often as it likes. Others are told who is,
// or wait until that one ends.
func TestAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first := startLocker(t, path)
	if first.says != "<nil>" {
		t.Fatalf("the first is not alone: %s", first.says)
	}
	err := alone(path, false)
	if who := fmt.Sprintf("process %d:", first.cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), who) {
		t.Errorf("beside %s: %v", who, err)
	}
	waited := make(chan error, 1)
	go func() { waited <- alone(path, true) }()
	select {
	case err := <-waited:
		t.Errorf("has not waited: %v", err)
	default:
	}
	first.stop()
	if err := <-waited; err != nil {
		t.Fatalf("after the other's end: %v", err)
	}
	if err := alone(path, false); err != nil {
		t.Errorf("a second time: %v", err)
	}
	second := startLocker(t, path)
	defer second.stop()
	if who := fmt.Sprintf("process %d:", os.Getpid()); !strings.Contains(second.says, who) {
		t.Errorf("beside %s: %s", who, second.says)
	}
}
