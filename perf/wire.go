package perf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
	"weir/perf/generator"
	"weir/perf/sink"
)

// Names and addresses on the wire. The port is that of the discard protocol.
const (
	wireName = "wire"
	loopName = "loop"
	sinkPort = 9
)

var (
	wireMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	loopMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
)

// A wire is a network of two hosts for one measurement: what is measured at the
// far end of a veth pair, generator and sink at the near one.
type wire struct {
	lab    *netlab.Lab
	near   *netlab.Host
	far    *netlab.Host
	source *generator.Generator // nil until openEnds
	sink   *sink.Sink           // nil until openEnds

	stop    context.CancelFunc // ends the generator
	stopped chan error         // what it has ended with
}

// hosts makes the two hosts, without a cable.
func (w *wire) hosts() (err error) {
	if w.lab, err = netlab.New("perf"); err != nil {
		return err
	}
	if w.near, err = w.quietHost("near"); err != nil {
		return err
	}
	w.far, err = w.quietHost("far")
	return err
}

// quietHost adds a host that sends nothing of its own.
func (w *wire) quietHost(name string) (*netlab.Host, error) {
	h, err := w.lab.Host(name)
	if err != nil {
		return nil, err
	}
	return h, errors.Join(
		h.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"),
		h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
}

// cable connects the hosts; queues are the far end's.
func (w *wire) cable(queues int) error {
	return w.near.ConnectTo(w.far, netlab.Iface{Name: wireName, MAC: wireMAC}, netlab.Iface{Name: loopName, MAC: loopMAC, Queues: queues})
}

// openEnds opens the sink and starts the generator, which is silent at first.
// opt says what to send and on which CPU.
func (w *wire) openEnds(ctx context.Context, opt generator.Options) error {
	link, err := w.near.Link(wireName)
	if err != nil {
		return err
	}
	err = w.near.Do(func() (err error) {
		w.sink, err = sink.Open(link.Index, sinkPort)
		return err
	})
	if err != nil {
		return err
	}
	opt.Interface, opt.Source, opt.Destination = link.Index, wireMAC, loopMAC
	if w.source, err = generator.New(opt); err != nil {
		return err
	}
	ctx, w.stop = context.WithCancel(ctx)
	w.stopped = make(chan error, 1)
	go func() { w.stopped <- w.near.Do(func() error { return w.source.Run(ctx) }) }()
	for w.source.Thread() == 0 {
		select {
		case err := <-w.stopped:
			w.stopped <- err
			return fmt.Errorf("generator has ended: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// statistics returns the kernel's counters of an interface.
func statistics(h *netlab.Host, name string) (s netlink.LinkStatistics, err error) {
	err = h.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			s = *link.Attrs().Statistics
		}
		return err
	})
	return s, err
}

// refused returns how many of the generator's frames the veth has not taken.
func (w *wire) refused() (uint64, error) {
	s, err := statistics(w.near, wireName)
	return s.TxDropped, err
}

// close ends everything and removes it. What was not got to is nil.
func (w *wire) close() error {
	var errs []error
	if w.stop != nil {
		w.stop()
		errs = append(errs, <-w.stopped)
	}
	if w.source != nil {
		errs = append(errs, w.source.Close())
	}
	if w.sink != nil {
		errs = append(errs, w.sink.Close())
	}
	if w.lab != nil {
		errs = append(errs, w.lab.Close())
	}
	return errors.Join(errs...)
}
