// Package testbed is the network in which something is measured: what is
// measured at the far end of a wire, and what makes and takes the traffic at the
// near one.
//
// The problem it solves: figures can only be compared if everything around them
// is the same, and if nothing is left of the measurement before. So each has new
// network namespaces, in which nobody speaks of his own accord.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
	"weir/perf/generator"
	"weir/perf/measure"
	"weir/perf/sink"
	"weir/perf/world"
)

// Names of interfaces.
const (
	NearName = "wire" // the near host's end of the wire
	FarName  = "loop" // the far host's
)

var (
	nearMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	farMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
)

// NearMAC returns the MAC address of the near end of the wire.
func NearMAC() [6]byte { return [6]byte(nearMAC) }

// Bed is a network of two hosts for one measurement: what is measured at the far
// end of a veth pair, generator and sink at the near one.
type Bed struct {
	Far    *netlab.Host
	Source *generator.Generator // nil until OpenEnds
	Sink   *sink.Sink           // nil until OpenEnds
	Hole   *sink.Ifb            // nil until OpenHole

	lab     *netlab.Lab
	near    *netlab.Host
	awake   *awake             // nil until KeepAwake
	stop    context.CancelFunc // ends the generator
	stopped chan error         // what it has ended with
	closed  bool
}

// New makes the two hosts, without a cable. Its owner closes it.
func New() (*Bed, error) {
	b := &Bed{}
	if err := b.hosts(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Bed) hosts() (err error) {
	if b.lab, err = netlab.New("perf"); err != nil {
		return err
	}
	if b.near, err = b.quietHost("near"); err != nil {
		return err
	}
	b.Far, err = b.quietHost("far")
	return err
}

// quietHost adds a host that sends nothing of its own.
func (b *Bed) quietHost(name string) (*netlab.Host, error) {
	h, err := b.lab.Host(name)
	if err != nil {
		return nil, err
	}
	return h, errors.Join(
		h.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"),
		h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
}

// Cable connects the hosts; queues are the far end's.
func (b *Bed) Cable(queues int) error {
	return b.near.ConnectTo(b.Far, netlab.Iface{Name: NearName, MAC: nearMAC}, netlab.Iface{Name: FarName, MAC: farMAC, Queues: queues})
}

// OpenHole gives the far host an interface of that name that drops whatever is
// sent by it. It has no queueing discipline either, as a veth has none.
func (b *Bed) OpenHole(name string) (err error) {
	if b.Hole, err = sink.OpenIfb(b.Far, name, 1); err != nil {
		return err
	}
	return b.Far.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		root := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}
		if err := netlink.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: root, QdiscType: "noqueue"}); err != nil {
			return fmt.Errorf("take queueing discipline off %s: %w", name, err)
		}
		return nil
	})
}

// KeepAwake keeps CPUs from halting for as long as the bed is there. A packet does not
// have to wait until a hypervisor has found time for the CPU that is to handle it.
func (b *Bed) KeepAwake(cpus ...int) (err error) {
	b.awake, err = keepAwake(cpus...)
	return err
}

// OpenEnds opens the sink and starts the generator, which is silent at first.
// The options say what to send, on which CPU, and what to look at: where that is
// follows from the network.
func (b *Bed) OpenEnds(ctx context.Context, opt generator.Options, look sink.Options) error {
	link, err := b.near.Link(NearName)
	if err != nil {
		return err
	}
	err = b.near.Do(func() (err error) {
		look.Interface, look.Port = link.Index, world.Port
		b.Sink, err = sink.Open(look)
		return err
	})
	if err != nil {
		return err
	}
	opt.Interface, opt.Source, opt.Destination = link.Index, nearMAC, farMAC
	if b.Source, err = generator.New(opt); err != nil {
		return err
	}
	ctx, b.stop = context.WithCancel(ctx)
	b.stopped = make(chan error, 1)
	go func() { b.stopped <- b.near.Do(func() error { return b.Source.Run(ctx) }) }()
	for b.Source.Thread() == 0 {
		if err := b.Alive(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// Alive fails once the generator has ended, with what it has ended with. Nobody
// else says so: it is as silent then as one that was told to be.
func (b *Bed) Alive() error {
	select {
	case err := <-b.stopped:
		b.stopped <- err
		if err == nil {
			return errors.New("generator has ended")
		}
		return fmt.Errorf("generator has ended: %w", err)
	default:
		return nil
	}
}

// Offer has the generator send so many frames, at a rate per second. sent counts
// them, and setRate changes the rate: Source's Sent and SetRate, or those for what
// it sends beside. The last frames may be on their way when it returns.
func (b *Bed) Offer(ctx context.Context, frames uint64, rate int, sent func() (uint64, error), setRate func(int) error) error {
	before, err := sent()
	if err != nil {
		return err
	}
	if err := setRate(rate); err != nil {
		return err
	}
	for now := before; now < before+frames; {
		if err := errors.Join(b.Alive(), measure.Sleep(ctx, time.Millisecond)); err != nil {
			return err
		}
		if now, err = sent(); err != nil {
			return err
		}
	}
	return setRate(0)
}

// Refused returns how many of the generator's frames the wire has not taken.
func (b *Bed) Refused() (uint64, error) {
	s, err := statistics(b.near, NearName)
	return s.TxDropped, err
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

// Close ends everything and removes it. What was not got to is nil. It may be
// called twice.
func (b *Bed) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	var errs []error
	if b.stop != nil {
		b.stop()
		errs = append(errs, <-b.stopped)
	}
	if b.Source != nil {
		errs = append(errs, b.Source.Close())
	}
	if b.Sink != nil {
		errs = append(errs, b.Sink.Close())
	}
	if b.Hole != nil {
		errs = append(errs, b.Hole.Close())
	}
	if b.awake != nil {
		errs = append(errs, b.awake.close())
	}
	if b.lab != nil {
		errs = append(errs, b.lab.Close())
	}
	return errors.Join(errs...)
}
