// Package netlab builds small networks out of network namespaces: hosts,
// switches and the cables between them, on one machine and without a VM.
//
// The problem it solves: a load balancer is only proven by real kernels that
// exchange real packets through it, and a test or a demonstration that fails
// half way must not leave namespaces, interfaces or processes behind. So
// everything a lab makes hangs on a name that carries the pid of the process
// that made it: [Lab.Close] removes all of it, the kernel kills a lab's
// processes when their maker dies, and [Sweep] clears up what is left then.
//
// A host is a named namespace, as ip-netns(8) makes them, so a person can look
// inside a running lab:
//
//	ip netns exec weir-demo-4711-client ping 203.0.113.10
//
// A goroutine moves between threads and a namespace belongs to a thread, so no
// function here leaves a thread of the program in a namespace: whatever has to
// happen inside one happens on a thread made for it, see [Host.Do].
//
// All of it needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and is Linux only.
package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// directory is where ip-netns(8) keeps named network namespaces.
const directory = "/run/netns"

// ErrClosed is returned by what needs a lab that has been closed.
var ErrClosed = errors.New("lab is closed")

var (
	labName  = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)
	nodeName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

	// fullName takes a namespace's name apart: lab, pid, host. A lab's own name
	// has no dash, so this can be done in one way only.
	fullName = regexp.MustCompile(`^weir-([a-z0-9_]+)-([0-9]+)-([a-z0-9][a-z0-9_-]*)$`)
)

// Lab is a network and the processes that run in it. Its methods, and those of
// its hosts and switches, may be called by several goroutines.
type Lab struct {
	prefix string

	mu         sync.Mutex
	closed     bool
	namespaces []*namespace
	processes  []*Process
	ports      int                   // serial number of the last switch port
	far        map[cableEnd]cableEnd // for each end of a cable the other one
}

// New returns an empty lab. The name, of a-z, 0-9 and _, becomes part of the
// names of its namespaces, together with the pid of this process. Two labs of
// one name may exist in one process as long as they have no host in common.
func New(name string) (*Lab, error) {
	if !labName.MatchString(name) {
		return nil, fmt.Errorf("new lab %q: the name must match %s", name, labName)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("new lab %q: network namespaces need root: run it with sudo", name)
	}
	return &Lab{
		prefix: fmt.Sprintf("weir-%s-%d-", name, os.Getpid()),
		far:    make(map[cableEnd]cableEnd),
	}, nil
}

// namespace makes a namespace that belongs to the lab, with all settings.
func (l *Lab) namespace(name string, settings []setting) (*namespace, error) {
	if !nodeName.MatchString(name) {
		return nil, fmt.Errorf("the name must match %s", nodeName)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	ns, err := newNamespace(l.prefix + name)
	if err != nil {
		return nil, err
	}
	l.namespaces = append(l.namespaces, ns)
	for _, s := range settings {
		if err := ns.sysctl(s.key, s.value); err != nil {
			return nil, err
		}
	}
	return ns, ns.setUp("lo")
}

// Close kills the processes that were started in the lab, waits for them, and
// removes its namespaces, with which the interfaces in them go. It may be
// called twice; the second call waits for the first. Sockets that were opened
// in the lab are the caller's to close: an open one keeps its namespace alive,
// without a name, until it is closed.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for _, p := range l.processes {
		p.kill()
	}
	for _, p := range l.processes {
		<-p.done
	}
	for _, ns := range l.namespaces {
		errs = append(errs, ns.close())
	}
	l.processes, l.namespaces = nil, nil
	return errors.Join(errs...)
}

// Sweep removes the namespaces of labs whose process has ended, see [Ended],
// and returns the names of those it removed. It is meant to be called before a
// lab is made. A pid that was given to another process in the meantime keeps
// the namespaces of the dead one; so nothing alive is ever removed, as long as
// all who share /run/netns also share one pid namespace.
func Sweep() ([]string, error) {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sweep labs: %w", err)
	}
	var removed []string
	var errs []error
	for _, entry := range entries {
		pid, ok := ownerOf(entry.Name())
		if !ok || !Ended(pid) {
			continue
		}
		if err := deleteNamed(entry.Name()); err != nil {
			errs = append(errs, fmt.Errorf("sweep labs: %w", err))
			continue
		}
		removed = append(removed, entry.Name())
	}
	return removed, errors.Join(errs...)
}

// ownerOf returns the pid in a namespace's name, and whether the name is one
// that a lab gives.
func ownerOf(name string) (pid int, ok bool) {
	parts := fullName.FindStringSubmatch(name)
	if parts == nil {
		return 0, false
	}
	pid, err := strconv.Atoi(parts[2])
	return pid, err == nil && pid > 0 && strconv.Itoa(pid) == parts[2]
}

// Ended tells whether a process has ended: there is none with that pid, or one that
// nobody has waited for yet (a zombie), of which no thread is left. A pidfd says
// which (pidfd_open(2)). What cannot be found out counts as alive.
func Ended(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 1
}

// deleteNamed removes a namespace's name. A name that is a plain file, because
// its maker died before it could mount anything there, goes as well.
func deleteNamed(name string) error {
	err := netns.DeleteNamed(name)
	if errors.Is(err, unix.EINVAL) {
		err = os.Remove(filepath.Join(directory, name))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	return nil
}
