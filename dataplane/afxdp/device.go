// Package afxdp receives and sends frames through AF_XDP sockets, one for each
// receive queue of a NIC.
//
// The problem it solves: to get frames between NIC and worker without the
// network stack in between. The kernel and the process share packet memory and
// four rings of frame addresses; most of the time moving a frame is writing its
// address into a ring. What is left to get right is who holds which frame, when
// the kernel has to be told, and to find the best of three ways that a driver
// offers.
//
// The rings are described in Documentation/networking/af_xdp.rst of the Linux
// source. There is one file for each. Linux 5.9 is the oldest that works, for
// its bpf_link on XDP.
package afxdp

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
	"weir/dataplane/steer"
	"weir/dataplane/xdplink"
)

// Mode is a way to share frames with a NIC.
type Mode string

// The modes, best first.
const (
	// ZeroCopy has the NIC read and write the packet memory itself.
	ZeroCopy Mode = "zero-copy"

	// Copy has the driver run the XDP program, and the kernel copy each frame
	// once, both ways.
	Copy Mode = "copy"

	// Generic has the kernel run the XDP program on an sk_buff. It works
	// with every driver.
	Generic Mode = "generic"
)

// Defaults of Options.
const (
	defaultRingSize = 2048

	// framesPerEntry makes enough frames to fill all rings but the completion
	// ring, which has only what was in the send ring, and some for Alloc.
	framesPerEntry = 6
)

// Options says how to open an interface. Only Interface is needed.
type Options struct {
	Interface string       // its name in the calling thread's network namespace
	Modes     []Mode       // to try, in this order; default all three, best first
	RingSize  int          // entries of the receive and send rings; the fill and completion rings have twice as many. A power of two; default 2048
	Frames    int          // packet buffers for each queue, at least four times RingSize; default six times
	Log       *slog.Logger // default: nothing is logged
}

// Device is one interface opened for receiving and sending. It owns the
// sockets, their memory and the attachment of the XDP program, but not the
// filter.
type Device struct {
	filter  *steer.Filter
	mode    Mode
	reasons []string
	sockets []*xsk

	mu     sync.Mutex
	link   io.Closer // detaches the XDP program
	closed bool
}

// Open opens all receive queues of the interface and takes over the frames that
// filter picks. It has to be called in the interface's network namespace; the
// Device then works from any thread.
//
// It tries the modes in order and takes the first that works for all queues.
// The error says why each did not. If another XDP program is on the interface,
// it is a *[xdplink.ForeignProgramError].
func Open(filter *steer.Filter, opt Options) (*Device, error) {
	d, err := open(filter, opt)
	if err != nil {
		return nil, fmt.Errorf("open AF_XDP on %s: %w", opt.Interface, err)
	}
	return d, nil
}

func open(filter *steer.Filter, opt Options) (*Device, error) {
	if filter.XDP() == nil {
		return nil, errors.New("no AF_XDP sockets in this kernel: use one with CONFIG_XDP_SOCKETS, or another driver")
	}
	c, err := opt.complete()
	if err != nil {
		return nil, err
	}
	nic, err := netlink.LinkByName(opt.Interface)
	if err != nil {
		return nil, fmt.Errorf("look up interface: %w", err)
	}
	c.ifindex = nic.Attrs().Index
	if c.frameSize, err = frameSize(nic.Attrs().MTU); err != nil {
		return nil, err
	}
	queues, known, err := pairQueues(nic.Attrs())
	if err != nil {
		return nil, err
	}

	modes := opt.Modes
	if len(modes) == 0 {
		modes = []Mode{ZeroCopy, Copy, Generic}
	}
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Device{filter: filter}
	var refused []error
	for _, c.mode = range modes {
		err := d.try(c, queues, known)
		if err == nil {
			d.mode = c.mode
			log.Debug("AF_XDP opened", "interface", opt.Interface, "mode", d.mode,
				"queues", len(d.sockets), "frame_size", c.frameSize, "refused", d.reasons)
			return d, nil
		}
		if foreign := new(xdplink.ForeignProgramError); errors.As(err, &foreign) {
			return nil, err // it is in the way of every mode
		}
		refused = append(refused, fmt.Errorf("%s: %w", c.mode, err))
		d.reasons = append(d.reasons, strings.ReplaceAll(refused[len(refused)-1].Error(), "\n", "; "))
	}
	return nil, errors.Join(refused...)
}

// complete returns a configuration that lacks only what the interface decides.
func (opt *Options) complete() (socketConfig, error) {
	c := socketConfig{ringSize: opt.RingSize, frames: opt.Frames}
	if c.ringSize == 0 {
		c.ringSize = defaultRingSize
	}
	if c.frames == 0 {
		c.frames = framesPerEntry * c.ringSize
	}
	if c.ringSize < batch || c.ringSize&(c.ringSize-1) != 0 {
		return c, fmt.Errorf("ring size %d is not a power of two of at least %d", c.ringSize, batch)
	}
	if c.frames < 4*c.ringSize {
		return c, fmt.Errorf("%d frames are fewer than four for each of the %d ring entries", c.frames, c.ringSize)
	}
	return c, nil
}

// try opens the device in the mode of c, or leaves nothing behind. Frames come
// in only after the last socket is ready. If the number of queues is not known,
// there are as many as sockets can be bound to.
func (d *Device) try(c socketConfig, queues int, known bool) (err error) {
	defer func() {
		if err != nil {
			_ = d.release() // the first error tells more
		}
	}()
	hook := xdplink.Native
	switch c.mode {
	case ZeroCopy, Copy:
	case Generic:
		hook = xdplink.Generic
	default:
		return errors.New("no such mode")
	}
	link, err := xdplink.Attach(d.filter.XDP(), c.ifindex, hook)
	if err != nil {
		return err
	}
	d.link = link
	for c.queue = range queues {
		s, err := openSocket(c)
		if !known && c.queue > 0 && errors.Is(err, unix.EINVAL) {
			break // this queue is not in use (net/xdp/xsk.c, xsk_bind)
		}
		if err != nil {
			return err
		}
		d.sockets = append(d.sockets, s)
	}
	for i, s := range d.sockets {
		// Without copies it is the driver that finds the ring full. It then
		// stops taking frames from the NIC, which is cheaper still.
		if s.copies {
			if s.room, err = d.filter.OpenRoom(i, c.ringSize); err != nil {
				return err
			}
		}
		if err := d.filter.SetSocket(i, s.fd); err != nil {
			return err
		}
	}
	return nil
}

// Mode returns the mode in use.
func (d *Device) Mode() Mode { return d.mode }

// Reasons returns for each mode tried before the one in use why it did not work.
func (d *Device) Reasons() []string { return d.reasons }

// Queues returns one queue for each receive queue of the interface, in its
// order. Closing one ends its traffic; the Device closes those that are left.
func (d *Device) Queues() []queue.Queue {
	queues := make([]queue.Queue, len(d.sockets))
	for i, s := range d.sockets {
		queues[i] = s
	}
	return queues
}

// Close detaches the XDP program, so that the kernel gets all frames again, and
// closes the queues. It may be called twice.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if err := d.release(); err != nil {
		return fmt.Errorf("close AF_XDP: %w", err)
	}
	return nil
}

// release undoes try. The kernel takes the sockets out of the filter's map when
// they are closed.
func (d *Device) release() error {
	var errs []error
	if d.link != nil {
		errs = append(errs, d.link.Close())
		d.link = nil
	}
	for _, s := range d.sockets {
		errs = append(errs, s.Close())
	}
	d.sockets = nil
	return errors.Join(errs...)
}
