package measure

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A thread's own time passes while it runs, and not while it sleeps, and is never
// behind what the scheduler tells others.
func TestOwnTime(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := func() time.Duration {
		ran, err := OwnTime()
		if err != nil {
			t.Fatal(err)
		}
		return ran
	}
	begun, before := time.Now(), own()
	for own() < before+2*time.Millisecond {
	}
	if ran, wall := own()-before, time.Since(begun); ran > wall {
		t.Errorf("ran for %v in %v", ran, wall)
	}
	before = own()
	time.Sleep(50 * time.Millisecond)
	if ran := own() - before; ran >= 50*time.Millisecond {
		t.Errorf("ran for %v while it slept", ran)
	}
	told, err := ReadThread(os.Getpid(), unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	if ran := own(); told.Ran > ran {
		t.Errorf("ran for %v, and for %v as others are told", ran, told.Ran)
	}
}

// Who has something to do is runnable, with or without a core, and who sleeps is
// not.
func TestRunnable(t *testing.T) {
	for script, want := range map[string]bool{"while :; do :; done": true, "exec sleep 60": false} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // until it has begun
			got, err := Runnable(cmd.Process.Pid)
			if err != nil {
				t.Error(err)
				break
			}
			if got == want {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s: runnable %v, want %v", script, got, want)
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
	if _, err := Runnable(0); err == nil {
		t.Error("a process that does not exist has a state")
	}
}
