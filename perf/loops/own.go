package loops

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"weir/dataplane/forward"
	"weir/dataplane/queue"
	"weir/dataplane/steer"
	"weir/perf/splice"
	"weir/perf/world"
)

// own is the loop on our own drivers, with the programs of the appliance that say
// which frames are its.
type own struct {
	port   *splice.Port
	queue  queue.Queue
	frames []queue.Frame
	sample []byte

	beating sync.WaitGroup
	stop    context.CancelFunc
	beat    error // that beating has ended with

	received uint64
	sent     uint64
}

func openOwn(opt *Options) (_ *own, err error) {
	l := &own{frames: make([]queue.Frame, forward.BatchSize), sample: make([]byte, sendLen)}
	driver := opt.Driver
	if driver == "" {
		driver = splice.AFXDP
	}
	if opt.Task == Send && driver == splice.AFXDP {
		driver = splice.Generic
	}
	if l.port, err = splice.Open(splice.Options{Driver: driver, In: opt.Interface, Out: opt.Out}); err != nil {
		return nil, err
	}
	l.queue = l.port.Queue
	if err := l.port.Steer(steer.Set{VIPs: []netip.Addr{world.VIP4, world.VIP6}}); err != nil {
		return nil, errors.Join(err, l.port.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.beating.Go(func() { l.beat = l.port.Run(ctx) })
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

func (l *own) taken() uint64 { return l.received }

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
	l.stop()
	l.beating.Wait()
	return errors.Join(l.beat, l.port.Close())
}
