package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is one named network namespace. It is always reached by its name
// and never by a kept descriptor, so that nothing done after close can end up
// in another namespace.
//
// It owns one thread that stays inside for as long as it exists, for the sake
// of its processes: the kernel sends the parent-death signal when the thread
// that forked a process ends, not when the program does (prctl(2),
// PR_SET_PDEATHSIG).
type namespace struct {
	name  string
	work  chan func()   // run by the thread, in order
	quit  chan struct{} // closed by close
	ended chan struct{} // closed as the thread ends
}

// newNamespace creates the namespace and starts its thread.
func newNamespace(name string) (*namespace, error) {
	ns := &namespace{
		name:  name,
		work:  make(chan func()),
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	ready := make(chan error)
	startThread(func() {
		defer close(ns.ended)
		err := enterNew(name)
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-ns.work:
				f()
			case <-ns.quit:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	return ns, nil
}

// enterNew puts the calling thread into a new network namespace of that name,
// and into a mount namespace whose /sys shows that network namespace, as
// ip-netns(8) does for its exec.
func enterNew(name string) error {
	fd, err := netns.NewNamed(name)
	if errors.Is(err, os.ErrExist) {
		return err // not ours to remove
	}
	if err != nil {
		return errors.Join(err, deleteNamed(name))
	}
	if err := fd.Close(); err != nil {
		return errors.Join(err, deleteNamed(name))
	}
	if err := ownSys(); err != nil {
		return errors.Join(err, deleteNamed(name))
	}
	return nil
}

// ownSys mounts a sysfs over /sys for the calling thread and its children. A
// sysfs shows the interfaces of the network namespace it was mounted from.
func ownSys() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	return nil
}

// startThread runs f on an operating-system thread that nothing else runs on
// and that ends with f, so f may do to it what cannot be undone.
//
// The main thread is passed over: it cannot end, so it would stay in whatever
// namespace f took it to, and /proc/self/ns and /proc/net would show that one.
func startThread(f func()) {
	go func() {
		runtime.LockOSThread() // for good: a thread ends with the goroutine locked to it
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(other)
			f()
		}()
		<-other // so long this goroutine keeps the main thread to itself
		runtime.UnlockOSThread()
	}()
}

// do runs f inside the namespace and returns its error. See [Host.Do].
func (ns *namespace) do(f func() error) error {
	done := make(chan error, 1)
	startThread(func() {
		err := errors.New("function did not return")
		defer func() { done <- err }()
		fd, e := netns.GetFromName(ns.name)
		if e != nil {
			if errors.Is(e, os.ErrNotExist) {
				e = ErrClosed
			}
			err = fmt.Errorf("open namespace: %w", e)
			return
		}
		e = netns.Set(fd)
		fd.Close()
		if e != nil {
			err = fmt.Errorf("enter namespace: %w", e)
			return
		}
		err = f()
	})
	return <-done
}

// onOwnThread runs f on the thread that lives as long as the namespace.
func (ns *namespace) onOwnThread(f func() error) error {
	done := make(chan error, 1)
	select {
	case ns.work <- func() { done <- f() }:
		return <-done
	case <-ns.quit:
		return ErrClosed
	}
}

// setting is one sysctl and its value.
type setting struct{ key, value string }

// sysctl writes one setting. See [Host.Sysctl].
func (ns *namespace) sysctl(key, value string) error {
	path := key
	if !strings.Contains(path, "/") {
		path = strings.ReplaceAll(path, ".", "/")
	}
	path = filepath.Join("/proc/sys", path)
	if !strings.HasPrefix(path, "/proc/sys/net/") {
		return fmt.Errorf("sysctl %s: only net.* belongs to a namespace", key)
	}
	err := ns.do(func() error {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = file.WriteString(value)
		return errors.Join(err, file.Close())
	})
	if err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// close ends the thread and removes the name. The caller sees to it that it is
// called once.
func (ns *namespace) close() error {
	close(ns.quit)
	<-ns.ended
	return deleteNamed(ns.name)
}
