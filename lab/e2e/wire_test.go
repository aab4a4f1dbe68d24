package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// wire is an AF_PACKET socket on an interface: what a cable tester is on a desk.
type wire struct {
	fd    int
	index int

	mu     sync.Mutex
	frames [][]byte
	ended  chan struct{} // closed when reading has stopped
	closed bool
}

// tap opens a wire on an interface of a host, and reads all frames from then on.
func tap(t *testing.T, h *netlab.Host, ifname string) *wire {
	t.Helper()
	var w *wire
	err := h.Do(func() (err error) {
		w, err = openWire(ifname)
		return err
	})
	if err != nil {
		t.Fatalf("tap %s of %s: %v", ifname, h.Name(), err)
	}
	t.Cleanup(w.close)
	return w
}

// tapSwitch opens a wire on a switch's bridge-side namespace, where what passes
// between any two hosts can be seen on the port it comes in by.
func tapSwitch(t *testing.T, s *netlab.Switch) *wire {
	t.Helper()
	var w *wire
	err := s.Do(func() (err error) {
		w, err = openWire("") // all ports
		return err
	})
	if err != nil {
		t.Fatalf("tap switch: %v", err)
	}
	t.Cleanup(w.close)
	return w
}

// openWire acts on the calling thread's namespace.
func openWire(ifname string) (*wire, error) {
	w := &wire{ended: make(chan struct{})}
	if ifname != "" {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return nil, err
		}
		w.index = ifi.Index
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	var err error
	if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	timeout := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: w.index}))
	if err != nil {
		unix.Close(w.fd)
		return nil, fmt.Errorf("prepare packet socket: %w", err)
	}
	go w.read()
	return w, nil
}

func (w *wire) read() {
	defer close(w.ended)
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, oobn, _, from, err := unix.Recvmsg(w.fd, buf, oob, 0)
		w.mu.Lock()
		closed := w.closed
		if address, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && address.Pkttype != unix.PACKET_OUTGOING {
			w.frames = append(w.frames, withTag(buf[:n], oob[:oobn]))
		}
		w.mu.Unlock()
		if closed || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENETDOWN) {
			return
		}
	}
}

// withTag copies a frame and puts the 802.1Q tag back that the kernel has taken
// out and reports beside it (packet(7), PACKET_AUXDATA).
func withTag(frame, oob []byte) []byte {
	copied := append([]byte(nil), frame...)
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(frame) < 14 {
		return copied
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		// struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid.
		status, tci := binary.NativeEndian.Uint32(m.Data), binary.NativeEndian.Uint16(m.Data[16:])
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tagged := append([]byte(nil), frame[:12]...)
		tagged = binary.BigEndian.AppendUint16(tagged, 0x8100)
		tagged = binary.BigEndian.AppendUint16(tagged, tci)
		return append(tagged, frame[12:]...)
	}
	return copied
}

// send puts a frame on the wire.
func (w *wire) send(frame []byte) error {
	if err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// received returns the frames read so far for which want is true.
func (w *wire) received(want func(frame []byte) bool) [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found [][]byte
	for _, f := range w.frames {
		if want(f) {
			found = append(found, f)
		}
	}
	return found
}

func (w *wire) close() {
	w.mu.Lock()
	again := w.closed
	w.closed = true
	w.mu.Unlock()
	if again {
		return
	}
	<-w.ended
	unix.Close(w.fd)
}
