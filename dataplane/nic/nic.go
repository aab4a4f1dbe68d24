// Package nic opens one interface for the data plane: it chooses the driver,
// prepares the interface for it, and keeps together what has to be closed
// together.
//
// The problem it solves: which driver works depends on the NIC, its MTU, the
// kernel and who else uses the interface. The user wants the best that works,
// to be told which that is, and why a better one did not.
package nic

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"weir/dataplane/afpacket"
	"weir/dataplane/afxdp"
	"weir/dataplane/offload"
	"weir/dataplane/queue"
	"weir/dataplane/steer"
	"weir/dataplane/xdplink"
)

// Driver is a way to get at an interface's frames.
type Driver string

// The drivers. Auto takes AF_XDP if it works and AF_PACKET otherwise.
const (
	Auto     Driver = "auto"
	AFXDP    Driver = "afxdp"
	AFPacket Driver = "afpacket"
)

// BeatInterval is how often Beat has to be called.
const BeatInterval = time.Second

// Options say what to open.
type Options struct {
	Interface string
	Driver    Driver
	XDPModes  []afxdp.Mode // to be tried in this order; nil for all, best first
	Queues    int          // how many; 0 for as many as the NIC has
	StateDir  string       // folder for what a killed weir has to tell the next; empty for none
	Log       *slog.Logger
}

// NIC is an open interface. Its owner closes it once no worker uses its queues.
type NIC struct {
	Name    string
	Driver  Driver
	Mode    string   // of AF_XDP: zero-copy, copy or generic; of AF_PACKET: empty
	Reasons []string // why what is better than this did not work
	Queues  []queue.Queue

	filter  *steer.Filter
	closers []func() error // in the order of opening
}

// Open opens an interface with the best driver allowed that works. The error
// says for each driver tried why it did not. An interface that another weir
// reads by AF_XDP is refused with any driver: this one would see none of its
// frames.
func Open(opt Options) (*NIC, error) {
	ifi, err := net.InterfaceByName(opt.Interface)
	if err != nil {
		return nil, fmt.Errorf("open interface %s: %w", opt.Interface, err)
	}
	n := &NIC{Name: opt.Interface}
	if err := n.open(ifi, opt); err != nil {
		return nil, errors.Join(fmt.Errorf("open interface %s: %w", opt.Interface, err), n.Close())
	}
	return n, nil
}

func (n *NIC) open(ifi *net.Interface, opt Options) error {
	err := refuseSecond(ifi.Index)
	if err != nil {
		return err
	}
	if n.filter, err = steer.Load(); err != nil {
		return err
	}
	n.closers = append(n.closers, n.filter.Close)
	if err := n.filter.SetMAC(ifi.HardwareAddr); err != nil {
		return err
	}
	if err := n.receiveMulticast(ifi); err != nil {
		return err
	}
	if opt.Driver == AFPacket {
		return n.openAFPacket(opt)
	}
	xdpErr := n.openAFXDP(opt)
	if xdpErr == nil || opt.Driver == AFXDP {
		return xdpErr
	}
	n.Reasons = append(n.Reasons, "afxdp: "+oneLine(xdpErr))
	if err := n.openAFPacket(opt); err != nil {
		return fmt.Errorf("no driver works:\nafxdp: %w\nafpacket: %w", xdpErr, err)
	}
	if taken := new(xdplink.ForeignProgramError); errors.As(xdpErr, &taken) {
		opt.Log.Warn("another XDP program keeps AF_XDP from being used, and AF_PACKET is slower",
			"interface", opt.Interface, "program", taken.Name, "error", taken)
	}
	return nil
}

// ownProgram is the XDP program's name in steer/bpf/steer.c.
const ownProgram = "weir_xdp"

// refuseSecond returns an error if another weir reads the interface by AF_XDP.
func refuseSecond(ifindex int) error {
	var taken *xdplink.ForeignProgramError
	if !errors.As(xdplink.Foreign(ifindex), &taken) || taken.Name != ownProgram {
		return nil
	}
	if taken.PID == 0 {
		return fmt.Errorf("another weir works this interface: %w", taken)
	}
	return fmt.Errorf("another weir works this interface (process %d): %w", taken.PID, taken)
}

func (n *NIC) openAFXDP(opt Options) error {
	before := len(n.closers)
	err := n.tryAFXDP(opt)
	if err != nil {
		return errors.Join(err, n.closeDownTo(before))
	}
	return nil
}

func (n *NIC) tryAFXDP(opt Options) error {
	// Some drivers refuse XDP while LRO is on, and a tag that the NIC has taken
	// off is lost to XDP.
	offloads, err := n.offloads(opt)
	if err != nil {
		return err
	}
	if err := offloads.Disable(offload.LRO, offload.VLANStripped); err != nil {
		return err
	}
	d, err := afxdp.Open(n.filter, afxdp.Options{
		Interface: opt.Interface, Modes: opt.XDPModes, Log: opt.Log,
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, d.Close)
	queues := d.Queues()
	if opt.Queues != 0 && opt.Queues != len(queues) {
		return fmt.Errorf("%d queues are configured and the interface has %d; set `queues: all`, or the NIC by `ethtool -L %s combined %d`",
			opt.Queues, len(queues), opt.Interface, opt.Queues)
	}
	if d.Mode() == afxdp.Generic {
		// Generic XDP sees packets after aggregation; native XDP before it.
		if err := offloads.Disable(offload.GRO, offload.HardwareGRO); err != nil {
			return err
		}
	}
	if err := adviseOnChecksums(opt); err != nil { // no reason to do without AF_XDP
		opt.Log.Debug("not known whether frames come with finished checksums", "interface", opt.Interface, "error", err)
	}
	n.Driver, n.Mode, n.Queues = AFXDP, string(d.Mode()), queues
	for _, reason := range d.Reasons() {
		n.Reasons = append(n.Reasons, "afxdp "+reason)
	}
	return nil
}

func (n *NIC) openAFPacket(opt Options) error {
	offloads, err := n.offloads(opt)
	if err != nil {
		return err
	}
	if err := offloads.Disable(offload.LRO, offload.GRO, offload.HardwareGRO); err != nil {
		return err
	}
	queues := opt.Queues
	if queues == 0 {
		if queues, err = afxdp.ReceiveQueues(opt.Interface); err != nil {
			return err
		}
	}
	d, err := afpacket.Open(n.filter, afpacket.Options{
		Interface: opt.Interface, Queues: queues, Log: opt.Log,
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, d.Close)
	n.Driver, n.Queues = AFPacket, d.Queues()
	return nil
}

// offloads returns the NIC's offloads, none of them switched off yet. Closing
// puts them back.
func (n *NIC) offloads(opt Options) (*offload.Settings, error) {
	s, err := offload.Open(opt.Interface, opt.StateDir, opt.Log)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, s.Restore)
	return s, nil
}

// Steer makes set what goes to the queues, and everything else the kernel's.
func (n *NIC) Steer(set steer.Set) error { return n.filter.Steer(set) }

// SetMAC tells the filter that the interface's address has changed.
func (n *NIC) SetMAC(mac net.HardwareAddr) error { return n.filter.SetMAC(mac) }

// Beat tells the kernel's side that weir is alive; see BeatInterval.
func (n *NIC) Beat() error { return n.filter.Beat() }

// Close puts the interface back to how it was found. It may be called twice.
func (n *NIC) Close() error { return n.closeDownTo(0) }

// closeDownTo undoes all but the first so many steps of opening.
func (n *NIC) closeDownTo(keep int) error {
	var errs []error
	for i := len(n.closers) - 1; i >= keep; i-- {
		errs = append(errs, n.closers[i]())
	}
	n.closers = n.closers[:min(keep, len(n.closers))]
	return errors.Join(errs...)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
