package measure

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Alone makes this process the only one on the machine that measures, until it
// ends: two would take each other's cores, and set kernel's limits that there are
// only once back to each other's values. It fails if there is another one; a test
// waits for that to end, since go test runs those of several packages at a time.
// It may be called again.
func Alone() error {
	return alone(filepath.Join(os.TempDir(), "weir-perf.lock"), testing.Testing())
}

// alone locks a file with a record lock (fcntl(2)). The kernel keeps it by
// process: it is had again without waiting, children do not inherit it, and it
// tells who has it. Closing any descriptor of the file would give it up, so this
// one stays open.
func alone(path string, wait bool) error {
	fd, err := openLock(path)
	if err != nil {
		return fmt.Errorf("see that nobody else measures: open %s: %w", path, err)
	}
	lock := func(command int) (unix.Flock_t, error) {
		l := unix.Flock_t{Type: unix.F_WRLCK}
		for {
			if err := unix.FcntlFlock(uintptr(fd), command, &l); !errors.Is(err, unix.EINTR) {
				return l, err
			}
		}
	}
	command := unix.F_SETLK
	if wait {
		command = unix.F_SETLKW
	}
	_, err = lock(command)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		holder, errHolder := lock(unix.F_GETLK)
		unix.Close(fd) // there is no lock to give up
		return errors.Join(fmt.Errorf("another measurement is running, process %d: wait for its end, or end it", holder.Pid), errHolder)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("see that nobody else measures: lock %s: %w", path, err)
	}
	return nil
}

// openLock opens a file that every user may lock. In a directory such as /tmp a
// file of another user cannot be opened as one that may have to be made
// (Documentation/admin-guide/sysctl/fs.rst, protected_regular).
func openLock(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_CREAT, 0o666); err != nil {
		return -1, err
	}
	_ = unix.Fchmod(fd, 0o666) // past the umask; it may be another's, who has made it just now
	return fd, nil
}
