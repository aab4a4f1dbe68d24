// Package reserve keeps the kernel from giving weir's ports to the box's own
// sockets.
//
// The problem it solves: a SNAT address that is also the box's own has a range
// of ports that are weir's. The kernel does not know, and sooner or later gives
// one of them to a connection of the box, whose answers then go to weir. So the
// range is added to net.ipv4.ip_local_reserved_ports
// (Documentation/networking/ip-sysctl.rst), which holds for TCP and UDP over
// IPv4 and IPv6, and for all addresses. That list belongs to the whole box:
// what others have put there stays, and only what weir has added is taken out
// again. A weir that is killed cannot do that, so it leaves a record for the
// next one.
//
// The list is only about ports that the kernel chooses. A program that asks for
// one of them by number still gets it, and the kernel's own NAT does not look at
// the list at all: see [InUse].
package reserve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Of the calling thread's network namespace.
const (
	reservedPath  = "/proc/sys/net/ipv4/ip_local_reserved_ports"
	ephemeralPath = "/proc/sys/net/ipv4/ip_local_port_range"
)

// Range is the ports from Lo to Hi.
type Range struct{ Lo, Hi uint16 }

func (r Range) String() string {
	if r.Lo == r.Hi {
		return fmt.Sprint(r.Lo)
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

// Reservation is the ports of one network namespace that are reserved for weir.
type Reservation struct {
	log       *slog.Logger
	record    record
	ephemeral Range // what the kernel chooses from

	mu       sync.Mutex
	list     *os.File // of the namespace it was opened in; nil once closed
	readOnly error    // why it cannot be written
	added    portSet  // those that were not reserved by others
}

// Reserve reserves the ports of ranges, which may be none, in the calling
// thread's network namespace. What an earlier weir has added there, and could
// not take out because it was killed, counts as added by this one: what is not
// in ranges goes. The record of that is a file in the folder stateDir; without
// a folder there is none. A record that cannot be read or written is logged,
// and no error. Whoever calls Reserve calls [Reservation.Close] in the end.
//
// It is an error if the kernel's list cannot be changed and has to be, or if no
// port is left that the kernel may choose for the box's own connections.
func Reserve(stateDir string, ranges []Range, log *slog.Logger) (*Reservation, error) {
	r := &Reservation{log: log}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("reserve ports: %w", err)
	}
	if stateDir != "" {
		var err error
		if r.record, err = newRecord(stateDir); err != nil {
			log.Warn("if weir is killed, ports stay reserved after it", "error", err)
		} else if r.added, err = r.record.read(); err != nil {
			log.Warn("ports that an earlier weir left reserved stay reserved", "error", err)
		}
	}
	if err := r.Update(ranges); err != nil {
		return nil, errors.Join(err, r.list.Close())
	}
	return r, nil
}

// Check returns the error that Reserve would have of ranges in the calling
// thread's network namespace, as far as it is for the ranges alone. It changes
// nothing, and needs no rights.
func Check(ranges []Range) error {
	ephemeral, err := readEphemeral()
	if err != nil {
		return err
	}
	var wanted portSet
	for _, r := range ranges {
		wanted.add(r)
	}
	return checkEphemeral(ephemeral, &wanted, &wanted)
}

// readEphemeral returns the ports that the kernel chooses from.
func readEphemeral() (r Range, err error) {
	text, err := os.ReadFile(ephemeralPath)
	if err != nil {
		return r, err
	}
	if _, err := fmt.Sscan(string(text), &r.Lo, &r.Hi); err != nil {
		return r, fmt.Errorf("read %s: %q: %w", ephemeralPath, text, err)
	}
	return r, nil
}

func (r *Reservation) open() (err error) {
	if r.ephemeral, err = readEphemeral(); err != nil {
		return err
	}
	// Where the list is read-only, as in a container, it may have all that is
	// asked for already.
	r.list, err = os.OpenFile(reservedPath, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		r.readOnly = err
		r.list, err = os.Open(reservedPath)
	}
	return err
}

// Update makes ranges the ports that are reserved for weir. What was and still
// is reserved, is so all the time, unless the kernel's list is longer than a
// page. It may be called from any thread. After an error nothing has changed.
func (r *Reservation) Update(ranges []Range) error {
	var wanted portSet
	for _, one := range ranges {
		if one.Lo == 0 || one.Lo > one.Hi {
			return fmt.Errorf("reserve ports: %d-%d is not a range from 1 to 65535", one.Lo, one.Hi)
		}
		wanted.add(one)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		return errors.New("reserve ports: already released")
	}
	if err := r.change(&wanted); err != nil {
		return fmt.Errorf("reserve ports %s: %w", &wanted, err)
	}
	return nil
}

// Close takes out again what was added, and nothing else; then the record goes.
// If that fails, the record stays for the next weir. It may be called from any
// thread, and twice: the second time does nothing.
func (r *Reservation) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		return nil
	}
	err := r.change(new(portSet))
	if err != nil {
		err = fmt.Errorf("release reserved ports: %w", err)
	}
	err = errors.Join(err, r.list.Close())
	r.list = nil
	return err
}

// change makes wanted the ports that are reserved for weir.
func (r *Reservation) change(wanted *portSet) error {
	before, err := r.read()
	if err != nil {
		return err
	}
	others := before.without(&r.added)
	added, after := wanted.without(&others), others.with(wanted)
	if err := checkEphemeral(r.ephemeral, wanted, &after); err != nil {
		return err
	}
	// Whoever is killed after the next step leaves a record of all that may
	// have to be taken out.
	if after != before {
		either := r.added.with(&added)
		r.keep(&either)
		if err := r.write(&after); err != nil {
			r.keep(&r.added)
			return err
		}
	}
	r.added = added
	r.keep(&added)
	return nil
}

// read returns what is reserved, by whomever. The kernel gives the list in one
// piece or not at all.
func (r *Reservation) read() (portSet, error) {
	text := make([]byte, maxList)
	n, err := r.list.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return portSet{}, err
	}
	list, err := parsePorts(string(text[:n]))
	if err != nil {
		return portSet{}, fmt.Errorf("read %s: %w", reservedPath, err)
	}
	return list, nil
}

func (r *Reservation) write(list *portSet) error {
	err := r.readOnly
	if err == nil {
		_, err = r.list.WriteAt([]byte(list.String()+"\n"), 0)
	}
	if err != nil {
		return fmt.Errorf("change the kernel's list (run as root or with CAP_NET_ADMIN, or set it before: sysctl -w net.ipv4.ip_local_reserved_ports=%s): %w", list, err)
	}
	return nil
}

// keep records what is, or is about to be, weir's to take out.
func (r *Reservation) keep(added *portSet) {
	if err := r.record.write(added); err != nil {
		r.log.Warn("if weir is killed, the next one does not know which reserved ports to release", "error", err)
	}
}

// checkEphemeral returns an error if weir leaves the kernel nothing to choose
// from.
func checkEphemeral(ephemeral Range, wanted, reserved *portSet) error {
	var all portSet
	all.add(ephemeral)
	if all.without(wanted) == all || all.without(reserved) != (portSet{}) {
		return nil
	}
	return fmt.Errorf("no port of %s is left for the box's own connections; reserve fewer, or make net.ipv4.ip_local_port_range wider", ephemeral)
}
