package nexthop

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// answerBuffer is the room for answers between two slots, in bytes: thousands.
const answerBuffer = 1 << 20

// sockets is the Ethernet of a network namespace. Each interface has a socket
// for each family that something is asked in: bound to one protocol, a socket
// costs nothing for the frames of others, and does not see any that are sent.
//
// It is the route's interface that is used: frames that are sent by a VLAN
// interface get their tag, and answers come from it without.
type sockets struct {
	log  *slog.Logger
	open map[socketKey]*socket
	out  [frameMax]byte
	in   [2048]byte
}

type socketKey struct {
	ifindex int
	ipv6    bool
}

type socket struct {
	fd      int   // -1 while it cannot be opened
	failure error // why
	retry   bool
	used    bool // since the last Tidy
}

func newSockets(log *slog.Logger) *sockets {
	return &sockets{log: log, open: map[socketKey]*socket{}}
}

// Ask opens the socket if need be, in the network namespace of the calling
// thread.
func (w *sockets) Ask(q question) bool {
	key := socketKey{q.ifindex, q.addr.Is6()}
	s := w.open[key]
	if s == nil {
		s = &socket{fd: -1, retry: true}
		w.open[key] = s
	}
	s.used = true
	if s.retry {
		s.retry = false
		fd, err := openSocket(key)
		if err != nil && (s.failure == nil || s.failure.Error() != err.Error()) {
			w.log.Warn("cannot poll neighbours, a quiet change of a MAC is noticed late", "ifindex", key.ifindex, "err", err)
		}
		s.fd, s.failure = fd, err
	}
	if s.fd < 0 {
		return false
	}
	_, err := unix.Write(s.fd, frameOf(&q, &w.out))
	s.check(err)
	return err == nil
}

func (w *sockets) Heard(f func(answer)) {
	for key, s := range w.open {
		for s.fd >= 0 {
			n, err := unix.Read(s.fd, w.in[:])
			if err != nil {
				s.check(err)
				break
			}
			if addr, mac, ok := answerOf(w.in[:n]); ok {
				f(answer{neighKey{key.ifindex, addr}, mac})
			}
		}
	}
}

// check closes the socket after an error that will not go away, as when the
// interface has gone. One that is down can come up again, packet(7).
func (s *socket) check(err error) {
	for _, passing := range []error{nil, unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENETDOWN} {
		if errors.Is(err, passing) {
			return
		}
	}
	s.close()
}

func (s *socket) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

func (w *sockets) Tidy() {
	for key, s := range w.open {
		if !s.used {
			s.close()
			delete(w.open, key)
		}
		s.used, s.retry = false, s.fd < 0
	}
}

func (w *sockets) Close() {
	for key, s := range w.open {
		s.close()
		delete(w.open, key)
	}
}

// openSocket opens a packet socket that lets in answers to this machine only.
//
// The descriptor returned is a duplicate, the one that the packet package
// opened is closed: that one is known to the Go runtime's poller, which would
// be woken for every answer.
func openSocket(key socketKey) (int, error) {
	protocol, instructions := unix.ETH_P_ARP, arpReplies()
	if key.ipv6 {
		protocol, instructions = unix.ETH_P_IPV6, neighbourAdvertisements()
	}
	filter, err := bpf.Assemble(instructions)
	if err != nil {
		return -1, fmt.Errorf("assemble filter: %w", err)
	}
	conn, err := packet.Listen(&net.Interface{Index: key.ifindex}, packet.Raw, protocol, &packet.Config{Filter: filter})
	if errors.Is(err, unix.EPERM) {
		return -1, fmt.Errorf("open packet socket (run as root or with CAP_NET_RAW): %w", err)
	}
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { _ = conn.Close() }()

	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("reach packet socket: %w", err)
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dupErr); err != nil {
		return -1, fmt.Errorf("duplicate packet socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, answerBuffer)
	return fd, nil
}

// Offsets in a frame without tag.
const (
	arpOperationAt = 14 + 6
	nextHeaderAt   = 14 + 6
	icmpv6TypeAt   = 14 + 40
)

// arpReplies is a filter, as in the kernel's networking/filter.rst, for ARP
// replies (2) to this machine. A reply to another, which a promiscuous
// interface hears too, must not stand for one to a question of ours.
func arpReplies() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_HOST, SkipTrue: 3},
		bpf.LoadAbsolute{Off: arpOperationAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 2, SkipTrue: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	}
}

// neighbourAdvertisements is such a filter for ICMPv6 (58) of type 136. A
// neighbour discovery packet has no extension headers in practice; one that has
// is seen by the kernel alone.
func neighbourAdvertisements() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_HOST, SkipTrue: 5},
		bpf.LoadAbsolute{Off: nextHeaderAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: icmpv6TypeAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 136, SkipTrue: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	}
}
