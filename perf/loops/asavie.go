package loops

import (
	"errors"
	"fmt"

	"github.com/asavie/xdp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AsavieVersion is the version of github.com/asavie/xdp in go.mod.
const AsavieVersion = "v0.3.3"

// maxStalls is how often in a row the kernel may take nothing before a drained
// loop goes on.
const maxStalls = 8

// asavie is the loop on github.com/asavie/xdp, with that library's own XDP
// program, which sends every frame to the socket.
type asavie struct {
	ifindex int
	program *xdp.Program
	socket  *xdp.Socket
	drained bool
	ring    int
	sample  []byte

	received uint64
	sent     uint64
	givenUp  uint64
}

func openAsavie(opt *Options) (_ *asavie, err error) {
	l := &asavie{drained: opt.Kind == AsavieDrained, ring: opt.Ring, sample: make([]byte, sendLen)}
	defer func() {
		if err != nil {
			_ = l.close() // the first error tells more
		}
	}()
	nic, err := netlink.LinkByName(opt.Interface)
	if err != nil {
		return nil, fmt.Errorf("look up interface: %w", err)
	}
	l.ifindex = nic.Attrs().Index
	// The library has no other way to say so.
	xdp.DefaultSocketFlags = unix.XDP_COPY
	xdp.DefaultXdpFlags = unix.XDP_FLAGS_DRV_MODE
	if opt.Task == Send {
		xdp.DefaultXdpFlags = 0
	}
	if l.program, err = xdp.NewProgram(1); err != nil {
		return nil, err
	}
	if err := l.program.Attach(l.ifindex); err != nil {
		return nil, fmt.Errorf("attach XDP program: %w", err)
	}
	l.socket, err = xdp.NewSocket(l.ifindex, 0, &xdp.SocketOptions{
		NumFrames:              2 * l.ring, // as in the library's defaults
		FrameSize:              2048,
		FillRingNumDescs:       l.ring,
		CompletionRingNumDescs: l.ring,
		RxRingNumDescs:         l.ring,
		TxRingNumDescs:         l.ring,
	})
	if err != nil {
		return nil, err
	}
	if err := l.program.Register(0, l.socket.FD()); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *asavie) forward() error {
	x := l.socket
	x.Fill(x.GetDescs(x.NumFreeFillSlots()))
	n, _, err := x.Poll(int(idle.Milliseconds()))
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	descs := x.Receive(n)
	for i := range descs {
		swap(x.GetFrame(descs[i]))
	}
	l.transmit(descs)
	l.received += uint64(len(descs))
	return nil
}

func (l *asavie) send() error {
	x := l.socket
	descs := x.GetDescs(x.NumFreeTxSlots())
	for i := range descs {
		descs[i].Len = uint32(copy(x.GetFrame(descs[i]), l.sample))
	}
	l.transmit(descs)
	if _, _, err := x.Poll(int(idle.Milliseconds())); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}

func (l *asavie) transmit(descs []xdp.Desc) {
	n := l.socket.Transmit(descs)
	l.sent += uint64(n)
	l.givenUp += uint64(len(descs) - n)
	if !l.drained {
		return
	}
	free := l.socket.NumFreeTxSlots()
	for stalls := 0; free < l.ring && stalls < maxStalls; stalls++ {
		l.socket.Complete(l.socket.NumCompleted()) // the kernel stops when this ring is full
		l.socket.Transmit(nil)
		if now := l.socket.NumFreeTxSlots(); now > free {
			free, stalls = now, 0
		}
	}
}

func (l *asavie) taken() uint64 { return l.received }

func (l *asavie) counters() (Counters, error) {
	s, err := l.socket.Stats()
	if err != nil {
		return Counters{}, err
	}
	return Counters{
		Received:       l.received,
		ReceiveDropped: s.KernelStats.Rx_dropped + s.KernelStats.Rx_ring_full,
		Sent:           l.sent,
		GivenUp:        l.givenUp,
	}, nil
}

func (l *asavie) close() error {
	var errs []error
	if l.program != nil {
		errs = append(errs, l.program.Detach(l.ifindex), l.program.Close())
	}
	if l.socket != nil {
		errs = append(errs, l.socket.Close())
	}
	return errors.Join(errs...)
}
