package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/dataplane/packet"
)

const (
	// tick is how often the watch looks whether it is to end.
	tick = 20 * time.Millisecond

	// moment is how much later than the socket of a probe the watch may hear of
	// what that one was told.
	moment = 50 * time.Millisecond

	// most bounds what is kept of one probe.
	most = 256

	// snap is the longest frame.
	snap = packet.EthernetLen + 1<<16
)

// watch is a packet socket that sees what comes in by any interface, whether the
// kernel takes it or not. Only ICMP and one local TCP port get past its filter, so
// that a busy box is not slowed down.
type watch struct {
	fd      int
	backend netip.Addr
	done    atomic.Bool
	ended   chan struct{}

	mu   sync.Mutex
	flow health.Flow // that is probed for
	all  []seen      // since the probe began
	news chan struct{}
}

func newWatch(backend netip.Addr) (*watch, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket (needs CAP_NET_RAW): %w", err)
	}
	w := &watch{fd: fd, backend: backend, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	interval := unix.NsecToTimeval(tick.Nanoseconds())
	err = errors.Join(
		w.filter(0), // before it is bound, so that nothing gets in unasked
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &interval),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set packet socket up: %w", err), unix.Close(fd))
	}
	go w.read()
	return w, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 } // weir is for little-endian machines

// filter lets ICMP and TCP to a local port pass.
func (w *watch) filter(port uint16) error {
	const icmp, tcp = uint32(packet.ProtoICMPv4), uint32(packet.ProtoTCP)
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(packet.EtherTypeIPv6), SkipTrue: 7},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(packet.EtherTypeIPv4), SkipTrue: 11},
		bpf.LoadAbsolute{Off: 14 + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmp, SkipTrue: 10},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: tcp, SkipTrue: 8},
		bpf.LoadMemShift{Off: 14},
		bpf.LoadIndirect{Off: 14 + 2, Size: 2},
		bpf.Jump{Skip: 4},
		bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(packet.ProtoICMPv6), SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: tcp, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 14 + 40 + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: snap},
	})
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	err = unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

func (w *watch) read() {
	defer close(w.ended)
	buf := make([]byte, snap)
	for !w.done.Load() {
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
				continue
			}
			return
		}
		s, ok := parse(buf[:n])
		if !ok {
			continue
		}
		w.mu.Lock()
		if len(w.all) < most && w.concerns(&s) {
			w.all = append(w.all, s)
		}
		w.mu.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

// concerns tells whether a packet has to do with the probe. Health checks of the
// same backend go on meanwhile: errors about their tunnelled packets are as good.
// It is called with mu held.
func (w *watch) concerns(s *seen) bool {
	switch s.kind {
	case segment:
		return s.port == w.flow.Local.Port() && w.flow.Protocol == packet.ProtoTCP
	case reply:
		return s.port == w.flow.Local.Port() && w.flow.Protocol != packet.ProtoTCP
	case redirect:
		return s.about.to == w.flow.Remote.Addr()
	}
	return s.about.to == w.flow.Remote.Addr() && s.about.port == w.flow.Local.Port() ||
		s.about.to == w.backend && s.tunnelled()
}

// tunnelled tells whether an error is about a packet that was in a tunnel.
func (s *seen) tunnelled() bool {
	return s.about.proto == packet.ProtoIPv4 || s.about.proto == packet.ProtoIPv6
}

// focus begins a probe: what was seen before is forgotten.
func (w *watch) focus(f health.Flow) error {
	port := uint16(0)
	if f.Protocol == unix.IPPROTO_TCP {
		port = f.Local.Port()
	}
	err := w.filter(port)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flow, w.all = f, nil
	return err
}

// probe returns what was seen since focus.
func (w *watch) probe() (health.Flow, []seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flow, append([]seen(nil), w.all...)
}

// await waits until something that matches has been seen. It reports whether it
// has.
func (w *watch) await(timeout time.Duration, match func(health.Flow, *seen) bool) bool {
	limit := time.After(timeout)
	for {
		flow, all := w.probe()
		for i := range all {
			if match(flow, &all[i]) {
				return true
			}
		}
		select {
		case <-w.news:
		case <-limit:
			return false
		}
	}
}

func (w *watch) close() {
	w.done.Store(true)
	<-w.ended
	_ = unix.Close(w.fd)
}
