package afpacket

import (
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// sendBuffer is how many bytes of frames a socket may have under way to the
// NIC: several batches of full-size frames.
const sendBuffer = 4 << 20

// openSocket opens a packet socket on ifi that drops every frame, because what
// it let in now would not be for a VIP only.
//
// The descriptor returned is a duplicate, the one that the packet package
// opened is closed: that one is known to the Go runtime's poller, which would be
// woken for every frame.
func openSocket(ifi *net.Interface) (int, error) {
	dropAll, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return -1, fmt.Errorf("assemble filter: %w", err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: dropAll})
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
	return fd, nil
}

// setUp makes the socket fd a ring of this geometry and returns its memory.
func setUp(fd int, geo geometry) ([]byte, error) {
	for _, o := range []struct {
		what       string
		name, want int
	}{
		{"choose ring version 2", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"reserve headroom", unix.PACKET_RESERVE, reserve},
		{"ignore outgoing frames", unix.PACKET_IGNORE_OUTGOING, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.name, o.want); err != nil {
			return nil, fmt.Errorf("%s: %w", o.what, err)
		}
	}

	// Both only make sending faster: they spare the queueing discipline, and
	// waiting for the NIC.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)

	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, geo.request()); err != nil {
		return nil, fmt.Errorf("create ring of %d slots of %d bytes (if memory is short, use fewer slots): %w",
			geo.slots, geo.size, err)
	}
	mem, err := unix.Mmap(fd, 0, geo.bytes(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ring: %w", err)
	}
	return mem, nil
}

// joinFanout makes the queues share the interface's frames by flow.
func joinFanout(queues []*ringQueue) error {
	// The group ignores outgoing frames or not, the members' own option does
	// not count. Older kernels do not know the flag and deliver them; the filter
	// drops those.
	const kind = unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING

	for i, q := range queues {
		arg := (kind | unix.PACKET_FANOUT_FLAG_UNIQUEID) << 16
		if i > 0 {
			group, err := unix.GetsockoptInt(queues[0].fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
			if err != nil {
				return fmt.Errorf("read fanout group: %w", err)
			}
			arg = kind<<16 | group&0xffff
		}
		if err := unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, arg); err != nil {
			return fmt.Errorf("share frames between %d queues (the interface has to be up, or use one queue): %w",
				len(queues), err)
		}
	}
	return nil
}
