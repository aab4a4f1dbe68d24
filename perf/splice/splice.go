// Package splice opens one interface to receive from and another one to send by,
// and makes one queue of the two.
//
// The problem it solves: on a veth, what a thread sends is received in the same
// system call, at the expense of the core that sends. To know what forwarding
// costs by itself, frames have to leave by an interface that costs nothing, an
// ifb, and a driver sends by the interface that it receives by. So there are two
// queues of the same driver, and between them each frame is copied, once, into a
// buffer of the other. Whoever is compared on a splice pays the same for that.
package splice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"weir/dataplane/afxdp"
	"weir/dataplane/nic"
	"weir/dataplane/queue"
	"weir/dataplane/steer"
)

// Driver is a driver of the data plane, and of AF_XDP the mode as well.
type Driver string

// The drivers. There is none for zero-copy, which no virtual interface has.
const (
	AFXDP    Driver = "afxdp"    // in copy mode, with the XDP program in the driver
	Generic  Driver = "generic"  // AF_XDP with the XDP program behind the driver
	AFPacket Driver = "afpacket" // AF_PACKET
)

// NIC returns what package nic calls a driver.
func (d Driver) NIC() (nic.Driver, []afxdp.Mode) {
	switch d {
	case AFPacket:
		return nic.AFPacket, nil
	case Generic:
		return nic.AFXDP, []afxdp.Mode{afxdp.Generic}
	}
	return nic.AFXDP, []afxdp.Mode{afxdp.Copy}
}

// sends returns the driver to send by another interface with: sending is the
// same in both modes of AF_XDP, and an ifb has no XDP of its own.
func (d Driver) sends() Driver {
	if d == AFXDP {
		return Generic
	}
	return d
}

// Options says what to open.
type Options struct {
	Driver Driver
	In     string // interface to receive from, in the calling thread's network namespace; of its queues the first is worked
	Out    string // interface to send by; empty for the same, and then nothing is copied
	Log    *slog.Logger
}

// Port is what was opened. Its queue is one worker's.
type Port struct {
	Queue queue.Queue

	in, out *nic.NIC // out is nil without another interface
}

// Open opens the interfaces. No frame is taken before Steer.
func Open(opt Options) (*Port, error) {
	p := &Port{}
	if err := p.open(opt); err != nil {
		return nil, errors.Join(fmt.Errorf("open splice: %w", err), p.Close())
	}
	return p, nil
}

func (p *Port) open(opt Options) (err error) {
	if p.in, err = openNIC(opt.In, opt.Driver, opt.Log); err != nil {
		return err
	}
	p.Queue = p.in.Queues[0]
	if opt.Out == "" || opt.Out == opt.In {
		return nil
	}
	if p.out, err = openNIC(opt.Out, opt.Driver.sends(), opt.Log); err != nil {
		return err
	}
	p.Queue = New(p.Queue, p.out.Queues[0])
	return nil
}

func openNIC(name string, driver Driver, log *slog.Logger) (*nic.NIC, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opt := nic.Options{Interface: name, Log: log}
	opt.Driver, opt.XDPModes = driver.NIC()
	return nic.Open(opt)
}

// Steer makes set what the queue gets, and everything else the kernel's.
func (p *Port) Steer(set steer.Set) error { return errors.Join(p.in.Steer(set), p.in.Beat()) }

// Run shows the kernel's side that somebody is there, until ctx ends.
func (p *Port) Run(ctx context.Context) error {
	t := time.NewTicker(nic.BeatInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := p.in.Beat(); err != nil {
				return err
			}
		}
	}
}

// Close closes the queues and puts the interfaces back to how they were found. It
// may be called twice.
func (p *Port) Close() error {
	var errs []error
	for _, n := range []*nic.NIC{p.out, p.in} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}
