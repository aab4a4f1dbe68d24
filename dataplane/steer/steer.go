// Package steer decides, inside the kernel, which received frames are weir's.
//
// The problem it solves: weir shares its NICs with the host. SSH, BGP sessions
// and the box's own traffic have to reach the kernel as if weir were not
// there, and frames for a VIP have to reach weir and nobody else. With NAT, what
// belongs to weir is not even to be told by the address alone. So the choice
// is made by a BPF program before either of them sees the frame. There are
// three, because AF_XDP and AF_PACKET take frames from different places, but
// they share one rule (is_weirs in bpf/steer.c) and one set of maps.
package steer

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// The object does not depend on where the checkout is: bpf2go makes the paths
// in it relative and strips the DWARF.
//
//go:generate go tool bpf2go -target bpfel -no-global-types steer bpf/steer.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// Filter is the programs and maps of one interface. All methods may be called
// from any goroutine. Whoever attaches one of its programs also detaches it:
// Close does not.
type Filter struct {
	objects *ebpf.Collection // its maps are read by the kernel and written only here

	mu                    sync.Mutex // one Steer at a time
	vips, locals, tunnels *table[address, flags]
	shared                *table[address, ports]
	answers               *table[endpoint, flags]
}

// Load puts the programs and maps into the kernel. Nothing is attached yet, no
// frame is weir's, and the destination MAC address is not checked.
//
// A kernel without AF_XDP sockets (CONFIG_XDP_SOCKETS) is no error, as
// AF_PACKET needs only the other two programs: then [Filter.XDP] is nil.
func Load() (*Filter, error) {
	// Only kernels before 5.11 count maps against RLIMIT_MEMLOCK, and the limit
	// there may be high enough: a failure matters only if loading then fails.
	limitErr := rlimit.RemoveMemlock()

	spec, err := loadSteer()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	if errors.Is(features.HaveMapType(ebpf.XSKMap), ebpf.ErrNotSupported) {
		delete(spec.Programs, steerProgWeirXdp)
		delete(spec.Maps, steerMapXsks)
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, explain(err, limitErr)
	}
	return &Filter{
		objects: objects,
		vips:    newTable[address, flags](objects, steerMapVips),
		locals:  newTable[address, flags](objects, steerMapLocals),
		tunnels: newTable[address, flags](objects, steerMapTunnels),
		shared:  newTable[address, ports](objects, steerMapShared),
		answers: newTable[endpoint, flags](objects, steerMapAnswers),
	}, nil
}

// explain adds to a failed load what to do about it.
func explain(err, limitErr error) error {
	switch {
	case errors.Is(err, unix.EPERM) && limitErr != nil:
		return fmt.Errorf("load BPF programs (run as root, or raise the locked-memory limit with ulimit -l: %w): %w", limitErr, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("load BPF programs (run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON): %w", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("load BPF programs (needs Linux 5.9 or newer with CONFIG_BPF_SYSCALL): %w", err)
	}
	return fmt.Errorf("load BPF programs (Linux 5.9 or newer is needed; see the kernel log): %w", err)
}

// XDP is the program for an interface's XDP hook: it redirects weir's frames
// to the queue's AF_XDP socket, or passes them if there is none. It does not
// see an 802.1Q tag that the NIC has taken out of the frame: where weir's
// frames have tags, "ethtool -K IF rxvlan off" keeps them in. It is nil if the
// kernel has no AF_XDP sockets. It belongs to the Filter.
func (f *Filter) XDP() *ebpf.Program { return f.objects.Programs[steerProgWeirXdp] }

// TC is the program for an interface's ingress (TCX, or clsact with direct
// action): it drops weir's frames, which AF_PACKET sockets have seen by then.
// It passes everything once [Filter.Beat] has not been called for 3 s. It
// belongs to the Filter.
func (f *Filter) TC() *ebpf.Program { return f.objects.Programs[steerProgWeirTc] }

// Socket is the filter for an AF_PACKET socket of type SOCK_RAW: it keeps
// weir's frames. It belongs to the Filter.
func (f *Filter) Socket() *ebpf.Program { return f.objects.Programs[steerProgWeirSocket] }

// SetMAC sets the interface's own Ethernet address: from then on IP packets
// are weir's only if they are sent to it. The zero address switches that off.
func (f *Filter) SetMAC(mac net.HardwareAddr) error {
	if len(mac) != 6 {
		return fmt.Errorf("set MAC address: %q is not an Ethernet address", mac)
	}
	var value [8]byte
	copy(value[:], mac)
	if err := f.objects.Maps[steerMapMac].Put(uint32(0), value); err != nil {
		return fmt.Errorf("set MAC address: %w", err)
	}
	return nil
}

// SetSocket hands weir's frames on a receive queue to the AF_XDP socket fd,
// which has to be bound to that queue. The kernel takes the socket out by
// itself when it is closed.
func (f *Filter) SetSocket(queue int, fd int) error {
	sockets := f.objects.Maps[steerMapXsks]
	if sockets == nil {
		return fmt.Errorf("set socket of queue %d (needs a kernel with CONFIG_XDP_SOCKETS): %w", queue, ebpf.ErrNotSupported)
	}
	if err := sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("set socket of queue %d: %w", queue, err)
	}
	return nil
}

// Beat tells the TC program that weir is alive. Called once a second it leaves
// room for two late ones.
func (f *Filter) Beat() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("heartbeat: read clock: %w", err)
	}
	if err := f.objects.Maps[steerMapHeartbeat].Put(uint32(0), uint64(now.Nano())); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return nil
}

// Close gives up the programs and maps. What is still attached keeps working
// with the maps as they are. It may be called twice.
func (f *Filter) Close() error {
	f.objects.Close()
	return nil
}
