// Package afpacket receives and sends frames through AF_PACKET sockets with a
// ring of packet slots shared with the kernel.
//
// The problem it solves: some NICs and kernels cannot serve AF_XDP, but every
// one of them has packet sockets. They cost one copy in the kernel each way,
// and they only look on: the kernel goes on with each frame as if nobody had
// seen it. So the package does two things. It lends the ring's slots to the
// worker as they are, without another copy, and it puts a program behind the
// sockets that keeps weir's frames from the kernel, or they would be forwarded
// twice.
//
// A sender on this host, or in a VM on it, that leaves segmentation to its NIC
// hands over giants: TCP segments of up to 64 KB, of which a slot, made for the
// MTU, holds only the beginning. They are dropped and counted as ReceiveInvalid.
// Such senders need "ethtool -K IF tso off gso off" on their end; what a NIC
// glued together on this one is switched off by package offload.
//
// The ring is described in Documentation/networking/packet_mmap.rst of the
// Linux source, the socket options in packet(7).
package afpacket

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
	"weir/dataplane/steer"
)

// defaultSlots is enough for a few milliseconds at a million frames a second.
const defaultSlots = 4096

// Options says how to open an interface. Only Interface is needed.
type Options struct {
	Interface string       // its name in the calling thread's network namespace
	Queues    int          // how many queues share the frames by flow; default 1
	SlotSize  int          // bytes per frame, headroom included, rounded up to a power of two; default from the MTU
	Slots     int          // frames the kernel can store per queue, rounded up to whole blocks; default 4096
	Log       *slog.Logger // default: nothing is logged

	classifier bool // use cls_bpf even where TCX works; set by tests
}

// Device is one interface opened for receiving and sending. It owns the
// sockets and the attachment of the filter, but not the filter.
type Device struct {
	filter *steer.Filter
	queues []*ringQueue
	guard  io.Closer // keeps weir's frames from the kernel
}

// Open opens the interface and takes over the frames that filter picks. What it
// picks, VIPs and MAC address, is set by the filter's owner, before or later;
// and as long as the queues are worked, the owner calls [steer.Filter.Beat]
// every second, or the kernel gets all frames again. Whether the NIC receives
// multicast frames, such as neighbour solicitations, is the caller's business.
// Open has to be called in the interface's network namespace; the Device then
// works from any thread.
//
// An interface that is down is no error with one queue. With several, older
// kernels refuse it.
func Open(filter *steer.Filter, opt Options) (*Device, error) {
	ifi, err := net.InterfaceByName(opt.Interface)
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", opt.Interface, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("open %s: not an Ethernet interface", opt.Interface)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{filter: filter}
	if err := d.open(ifi, opt); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s with AF_PACKET: %w", opt.Interface, err), d.Close())
	}
	return d, nil
}

func (d *Device) open(ifi *net.Interface, opt Options) error {
	geo, err := newGeometry(ifi.MTU, opt.SlotSize, opt.Slots)
	if err != nil {
		return err
	}
	queues := max(opt.Queues, 1)
	for range queues {
		q, err := newQueue(ifi, geo)
		if err != nil {
			return err
		}
		d.queues = append(d.queues, q)
	}
	if queues > 1 {
		if err := joinFanout(d.queues); err != nil {
			return err
		}
	}

	// Until the last step all sockets drop everything. So for a moment frames
	// for a VIP are lost; the other way round they would go out twice.
	if err := d.filter.Beat(); err != nil {
		return err
	}
	guard, how, err := attachGuard(d.filter.TC(), ifi.Index, opt.classifier)
	if err != nil {
		return err
	}
	d.guard = guard
	for _, q := range d.queues {
		if err := attachFilter(q.fd, d.filter.Socket()); err != nil {
			return err
		}
	}
	opt.Log.Debug("AF_PACKET opened", "interface", ifi.Name, "queues", queues,
		"slots", geo.slots, "slot_size", geo.size, "guard", how)
	return nil
}

// Queues returns the queues in a fixed order. A flow's frames, in either
// direction, all arrive on one of them; which one may change after the link
// was down.
func (d *Device) Queues() []queue.Queue {
	queues := make([]queue.Queue, len(d.queues))
	for i, q := range d.queues {
		queues[i] = q
	}
	return queues
}

// Close closes all queues and then gives the interface back to the kernel. The
// rules of [queue.Queue.Close] apply. It may be called twice.
func (d *Device) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.Close())
	}
	if d.guard != nil {
		errs = append(errs, d.guard.Close())
	}
	return errors.Join(errs...)
}

// attachFilter replaces the filter of the socket fd.
func attachFilter(fd int, prog *ebpf.Program) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, prog.FD()); err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	return nil
}
