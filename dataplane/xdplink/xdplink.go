// Package xdplink attaches an XDP program to a NIC without ever taking the
// place of somebody else's.
//
// The problem it solves: a NIC has room for one XDP program. A program put
// there by another tool (a firewall, a DDoS filter, a second weir) is doing a
// job, so replacing it silently breaks that job, and failing with "device or
// resource busy" tells the operator nothing. Attach never replaces, and when
// the place is taken it says by which program, who holds it and how to get rid
// of it.
package xdplink

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mode is where in the receive path an XDP program runs.
type Mode uint8

const (
	// Native runs the program in the driver, before an sk_buff exists.
	Native Mode = iota + 1

	// Generic runs the program in the network stack, on an sk_buff. Every
	// NIC can do it; it is slower.
	Generic

	// Offload runs the program on the NIC itself. Attach does not do it; it
	// is only ever seen on a foreign program.
	Offload
)

// String returns the mode's name in lower case.
func (m Mode) String() string {
	switch m {
	case Native:
		return "native"
	case Generic:
		return "generic"
	case Offload:
		return "offload"
	}
	return "unknown"
}

// ErrMode is returned, wrapped, by Attach when the NIC's driver has no native
// XDP, or not for its present settings. The next thing to try is Generic.
var ErrMode = errors.New("driver does not take an XDP program in this mode")

// Attach attaches prog to the NIC with index ifindex, in the calling thread's
// network namespace, by a bpf_link: the program stays for as long as the link
// is open, and the kernel detaches it when the process ends, however it ends.
//
// It does not wait for or replace a program that is there already: the kernel
// refuses that itself, so there is no moment in which it could happen
// (net/core/dev.c, dev_xdp_attach). The error is then a *[ForeignProgramError].
// It wraps [ErrMode] if mode is Native and the driver will not have it.
func Attach(prog *ebpf.Program, ifindex int, mode Mode) (link.Link, error) {
	var flags link.XDPAttachFlags
	switch mode {
	case Native:
		flags = link.XDPDriverMode
	case Generic:
		flags = link.XDPGenericMode
	default:
		return nil, fmt.Errorf("attach XDP program: mode %s: only native and generic can be asked for", mode)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: flags})
	if err == nil {
		return l, nil
	}
	// Whatever the kernel's reason, these come first: a taken NIC would have
	// refused anyway, and a missing one is no more than EINVAL to it.
	if taken := Foreign(ifindex); taken != nil {
		return nil, taken
	}
	if mode == Native && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE)) {
		// The kernel has no native XDP for the driver, or the driver has
		// looked at MTU, queues or offloads and said no.
		return nil, fmt.Errorf("attach XDP program, native: %w: %w", ErrMode, err)
	}
	if mode == Native && errors.Is(err, unix.ENOSPC) {
		// drivers/net/veth.c, veth_xdp_set. The kernel's own words for it are
		// not to be had through a bpf_link.
		return nil, fmt.Errorf("attach XDP program, native: %w: too few receive queues for its peer's transmit queues; "+
			"set fewer of those (ethtool -L PEER tx N), or more of these (ethtool -L %s rx N): %w", ErrMode, nameOf(ifindex), err)
	}
	return nil, fmt.Errorf("attach XDP program, %s: %w", mode, err)
}

func nameOf(ifindex int) string {
	ifi, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return "IF"
	}
	return ifi.Name
}

// Foreign returns nil if the NIC with index ifindex, in the calling thread's
// network namespace, has no XDP program, a *[ForeignProgramError] if it has
// one, and another error if the NIC cannot be looked at.
//
// It says what is there, not whose it is: asked after Attach, it reports the
// caller's own program.
func Foreign(ifindex int) error {
	nic, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return fmt.Errorf("look for an XDP program on interface %d: %w", ifindex, err)
	}
	xdp := nic.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return nil
	}
	e := &ForeignProgramError{
		Interface: nic.Attrs().Name,
		ID:        ebpf.ProgramID(xdp.ProgId),
		Mode:      modeOf(xdp.AttachMode),
	}
	e.Name = programName(e.ID)
	e.Link = linkOf(e.ID, ifindex)
	if e.Link != 0 {
		e.PID, e.Process = holder("/proc", e.Link)
	}
	return e
}

// modeOf translates IFLA_XDP_ATTACHED (linux/if_link.h). 4 is
// XDP_ATTACHED_MULTI, an offloaded program beside another one; the kernel then
// gives no single program id, and Mode stays zero.
func modeOf(attached uint32) Mode {
	switch attached {
	case 1:
		return Native
	case 2:
		return Generic
	case 3:
		return Offload
	}
	return 0
}
