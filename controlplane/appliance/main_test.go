package appliance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// inNamespace is set for the copy of the test that runs in a namespace.
const inNamespace = "WEIR_APPLIANCE_TEST_NAMESPACE"

// TestMain runs the tests once more, as a process in a network namespace of
// its own: the appliance's goroutines run on any thread, so one thread in a
// namespace would not do. The namespace ends with the process.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(inNamespace) != "":
		if err := quietNamespace(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare namespace:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Geteuid() == 0:
		os.Exit(again())
	}
	os.Exit(m.Run())
}

func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the child dies with this thread
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "run tests in a namespace:", err)
		return 1
	}
	return 0
}

// quietNamespace keeps the kernel from sending anything of its own.
func quietNamespace() error {
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0),
		os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0))
}

func needNamespace(t testing.TB) {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: makes a network namespace")
	}
	t.Skip("needs root: makes a network namespace")
}
