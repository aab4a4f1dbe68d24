package loops

import (
	"errors"
	"net/netip"

	"weir/dataplane/afxdp"
	"weir/dataplane/forward"
	"weir/dataplane/queue"
	"weir/dataplane/steer"
)

// VIP is the one address whose frames [Own] takes: its XDP program picks
// frames by address, as in the appliance.
var VIP = netip.AddrFrom4([4]byte{203, 0, 113, 10})

// own is the loop on our rings, with the defaults of dataplane/afxdp and the
// XDP program of the appliance.
type own struct {
	filter *steer.Filter
	device *afxdp.Device
	queue  queue.Queue
	frames []queue.Frame
	sample []byte

	received uint64
	sent     uint64
}

func openOwn(opt *Options) (_ *own, err error) {
	l := &own{frames: make([]queue.Frame, forward.BatchSize), sample: make([]byte, sendLen)}
	defer func() {
		if err != nil {
			_ = l.close() // the first error tells more
		}
	}()
	if l.filter, err = steer.Load(); err != nil {
		return nil, err
	}
	if err := l.filter.Steer(steer.Set{VIPs: []netip.Addr{VIP}}); err != nil {
		return nil, err
	}
	modes := []afxdp.Mode{afxdp.Copy}
	if opt.Task == Send {
		modes = append(modes, afxdp.Generic)
	}
	if l.device, err = afxdp.Open(l.filter, afxdp.Options{Interface: opt.Interface, Modes: modes, RingSize: opt.Ring}); err != nil {
		return nil, err
	}
	l.queue = l.device.Queues()[0]
	return l, nil
}

func (l *own) forward() error {
	n, err := l.queue.Receive(l.frames)
	if err != nil {
		return err
	}
	if n == 0 {
		return l.queue.Wait(idle)
	}
	l.received += uint64(n)
	for i := range l.frames[:n] {
		swap(l.frames[i].Bytes())
	}
	sent, err := l.queue.Send(l.frames[:n])
	l.sent += uint64(sent)
	return err
}

func (l *own) send() error {
	n := l.queue.Alloc(l.frames)
	for i := range l.frames[:n] {
		f := &l.frames[i]
		f.End = f.Start + uint32(copy(f.Buf[f.Start:], l.sample))
	}
	sent, err := l.queue.Send(l.frames[:n])
	l.sent += uint64(sent)
	return err
}

func (l *own) counters() (Counters, error) {
	s := l.queue.Stats()
	return Counters{
		Received:       l.received,
		ReceiveDropped: s.ReceiveDropped,
		Sent:           l.sent,
		GivenUp:        s.TransmitDropped,
	}, nil
}

func (l *own) close() error {
	var errs []error
	if l.device != nil {
		errs = append(errs, l.device.Close())
	}
	if l.filter != nil {
		errs = append(errs, l.filter.Close())
	}
	return errors.Join(errs...)
}
