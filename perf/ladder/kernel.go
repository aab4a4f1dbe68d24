package ladder

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/steer"
)

// What XDP programs return (include/uapi/linux/bpf.h).
const (
	xdpPass     = 2
	xdpRedirect = 4
)

const (
	// fewestRuns are measured at once, at least.
	fewestRuns = 1 << 14

	// kernelSlice is longer than other slices: every call takes the kernel some
	// milliseconds on top, most of which it waits (bpf_prog_change_xdp).
	kernelSlice = 8 * time.Millisecond
)

// kernel is weir's XDP program with a socket to redirect to, and an empty program
// that shows what running one costs by itself.
type kernel struct {
	filter *steer.Filter
	empty  *ebpf.Program
	socket int
}

// openKernel loads the programs. It needs root.
func (l *ladder) openKernel() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the kernel runs programs for root only: run as root")
	}
	k := &kernel{socket: -1}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if k.filter, err = steer.Load(); err != nil {
		return err
	}
	if k.filter.XDP() == nil {
		return errors.New("the kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)")
	}
	if err := k.filter.Steer(steer.Set{VIPs: []netip.Addr{vipOf(false, 0), vipOf(true, 0)}}); err != nil {
		return err
	}
	if err := k.filter.SetMAC(weirMAC[:]); err != nil {
		return err
	}
	if k.socket, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open AF_XDP socket: %w", err)
	}
	// That it is not bound shows only when a frame is given to it, which a test
	// run does not do.
	if err := k.filter.SetSocket(0, k.socket); err != nil {
		return err
	}
	k.empty, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load empty program: %w", err)
	}
	l.kernel = k
	return nil
}

func (k *kernel) close() {
	if k.empty != nil {
		k.empty.Close()
	}
	if k.filter != nil {
		_ = k.filter.Close() // nothing is lost with it
	}
	if k.socket >= 0 {
		_ = unix.Close(k.socket)
	}
}

// measure is rig.measure for the XDP program. Restoring is what the empty program
// costs.
func (k *kernel) measure(c Cell, window time.Duration) (Sample, error) {
	v6 := c.Mode.client6()
	to, want := vipOf(v6, 0), uint32(xdpRedirect)
	if c.Other {
		to, want = address(v6, backendNet, 0), xdpPass
	}
	t := newTemplate(weirMAC, clientMAC, address(v6, clientNet, 0), to, c.Protocol, packet.TCPAck)
	f := queue.Frame{Buf: make([]byte, bufferSize)}
	t.put(&f, key{srcPort: 1000, dstPort: servicePort})

	m := meter{packets: 1, fewest: fewestRuns, longest: kernelSlice, loop: func(n int, restore bool) (time.Duration, error) {
		if restore {
			return k.run(k.empty, f.Bytes(), uint32(n), xdpPass)
		}
		return k.run(k.filter.XDP(), f.Bytes(), uint32(n), want)
	}}
	if err := m.calibrate(window); err != nil {
		return Sample{}, err
	}
	figures, err := m.measure(window)
	return newSample(c, figures), err
}

// run returns how long the thread has run for a number of runs of a program.
func (k *kernel) run(p *ebpf.Program, frame []byte, repeat, want uint32) (time.Duration, error) {
	start := threadTime()
	got, err := p.Run(&ebpf.RunOptions{Data: frame, Repeat: repeat})
	took := threadTime() - start
	if err == nil && got != want {
		err = fmt.Errorf("the program returns %d, want %d", got, want)
	}
	return took, err
}
