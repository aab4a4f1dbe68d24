package perf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/sink"
)

// Names and addresses on the rig. The port is that of the discard protocol.
const (
	wireName = "wire"
	loopName = "loop"
	sinkPort = 9
)

var (
	wireMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	loopMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
)

// A rig is one loop at work in a network of its own: a veth pair with generator
// and sink at one end and the loop at the other, or, if the loop only sends, an
// ifb, which drops whatever a program sends through it (drivers/net/ifb.c).
type rig struct {
	lab    *netlab.Lab
	near   *netlab.Host // where generator and sink are
	far    *netlab.Host // where the loop is
	loop   *loopProcess
	task   loops.Task
	source *generator.Generator // nil if the loop only sends
	sink   *sink.Sink           // nil if the loop only sends

	stop    context.CancelFunc // ends the generator
	stopped chan error         // what it has ended with
}

func newRig(ctx context.Context, opt *Options, kind loops.Kind, task loops.Task) (_ *rig, err error) {
	r := &rig{task: task}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.lab, err = netlab.New("perf"); err != nil {
		return nil, err
	}
	if r.near, err = r.quietHost("near"); err != nil {
		return nil, err
	}
	if r.far, err = r.quietHost("far"); err != nil {
		return nil, err
	}
	if err := r.cable(); err != nil {
		return nil, err
	}
	if r.loop, err = startLoop(r.far, opt, kind, task); err != nil {
		return nil, err
	}
	if task == loops.Forward {
		err = r.openEnds(ctx, opt)
	}
	return r, err
}

// quietHost adds a host that sends nothing of its own.
func (r *rig) quietHost(name string) (*netlab.Host, error) {
	h, err := r.lab.Host(name)
	if err != nil {
		return nil, err
	}
	return h, errors.Join(
		h.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"),
		h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
}

func (r *rig) cable() error {
	if r.task == loops.Forward {
		return r.near.ConnectTo(r.far, netlab.Iface{Name: wireName, MAC: wireMAC}, netlab.Iface{Name: loopName, MAC: loopMAC})
	}
	return r.far.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = loopName, 1, 1
		ifb := &netlink.Ifb{LinkAttrs: attrs}
		if err := netlink.LinkAdd(ifb); err != nil {
			return fmt.Errorf("create ifb (needs a kernel with CONFIG_IFB): %w", err)
		}
		return netlink.LinkSetUp(ifb)
	})
}

// openEnds opens the sink and starts the generator, which is silent at first.
func (r *rig) openEnds(ctx context.Context, opt *Options) error {
	link, err := r.near.Link(wireName)
	if err != nil {
		return err
	}
	err = r.near.Do(func() (err error) {
		r.sink, err = sink.Open(link.Index, sinkPort)
		return err
	})
	if err != nil {
		return err
	}
	r.source, err = generator.New(generator.Options{
		Interface:   link.Index,
		Source:      wireMAC,
		Destination: loopMAC,
		To:          netip.AddrPortFrom(loops.VIP, sinkPort),
		Flows:       opt.Flows,
		CPU:         opt.CPUs[0],
	})
	if err != nil {
		return err
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.stopped = make(chan error, 1)
	go func() { r.stopped <- r.near.Do(func() error { return r.source.Run(ctx) }) }()
	for r.source.Thread() == 0 {
		select {
		case err := <-r.stopped:
			r.stopped <- err
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

// counts returns how many frames were offered and delivered so far.
func (r *rig) counts() (offered, delivered uint64, err error) {
	if r.task == loops.Send {
		s, err := statistics(r.far, loopName)
		return 0, s.RxPackets, err // on an ifb the frames it was given
	}
	if offered, err = r.source.Sent(); err != nil {
		return 0, 0, err
	}
	delivered, err = r.sink.Arrived()
	return offered, delivered, err
}

// account ends the loop and says what has become of all frames.
func (r *rig) account() (a Account, err error) {
	if a.Counters, err = r.loop.stop(); err != nil {
		return Account{}, err
	}
	if a.Offered, a.Delivered, err = r.counts(); err != nil || r.task == loops.Send {
		return a, err
	}
	s, err := statistics(r.near, wireName)
	a.Refused = s.TxDropped
	return a, err
}

// close ends everything and removes it. What newRig did not get to is nil.
func (r *rig) close() error {
	var errs []error
	if r.stop != nil {
		r.stop()
		errs = append(errs, <-r.stopped)
	}
	if r.source != nil {
		errs = append(errs, r.source.Close())
	}
	if r.sink != nil {
		errs = append(errs, r.sink.Close())
	}
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	return errors.Join(errs...)
}
