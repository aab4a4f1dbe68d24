package afxdp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
	"weir/dataplane/steer"
	"weir/dataplane/xdplink"
)

// TestMain makes the test binary a second weir when a test starts it so.
func TestMain(m *testing.M) {
	if mode := os.Getenv("WEIR_TEST_CHILD"); mode != "" {
		os.Exit(child(Mode(mode)))
	}
	os.Exit(m.Run())
}

// child opens the interface, says so, and stays until it is ended.
func child(mode Mode) int {
	filter, err := steer.Load()
	if err == nil {
		_, err = Open(filter, Options{Interface: "host", Modes: []Mode{mode}})
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("open\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestModesInOrder(t *testing.T) {
	l := newLab(t, 1)
	d := l.open(Options{})
	// A veth has native XDP and no zero-copy.
	if d.Mode() != Copy {
		t.Errorf("mode %s", d.Mode())
	}
	if len(d.Reasons()) != 1 || !strings.HasPrefix(d.Reasons()[0], "zero-copy: queue 0: bind AF_XDP socket (the driver has no zero-copy") {
		t.Errorf("reasons: %q", d.Reasons())
	}
	l.must(d.Close())
	l.must(d.Close())
	if err := xdplink.Foreign(l.host.Attrs().Index); err != nil {
		t.Errorf("after Close: %v", err)
	}

	_, err := Open(l.filter, Options{Interface: "host", Modes: []Mode{ZeroCopy, "fast"}})
	if err == nil || !strings.Contains(err.Error(), "zero-copy: ") || !strings.Contains(err.Error(), "fast: ") {
		t.Errorf("all modes refused: %v", err)
	}
	if err := xdplink.Foreign(l.host.Attrs().Index); err != nil {
		t.Errorf("after a failed Open: %v", err)
	}

	// The order is the caller's, and right after another one it works too.
	d = l.open(Options{Modes: []Mode{Generic, Copy}})
	if d.Mode() != Generic || len(d.Reasons()) != 0 {
		t.Errorf("mode %s, reasons %q", d.Mode(), d.Reasons())
	}
	l.send(udp(t, vip, 1, []byte("generic")))
	receive(t, d.Queues()[0], 1)
}

func TestReopen(t *testing.T) {
	l := newLab(t, 2)
	for i := range 20 {
		d := l.open(Options{Modes: []Mode{[]Mode{Copy, Generic}[i%2]}, RingSize: 64})
		l.must(d.Close())
	}
}

func TestLoopbackHasOnlyGeneric(t *testing.T) {
	l := newLab(t, 1)
	lo := l.link("lo")
	l.must(netlink.LinkSetMTU(lo, 1500))
	d, err := Open(l.filter, Options{Interface: "lo", RingSize: 64})
	l.must(err)
	defer d.Close()
	if d.Mode() != Generic || len(d.Reasons()) != 2 {
		t.Errorf("mode %s, reasons %q", d.Mode(), d.Reasons())
	}
}

func TestOpenRefuses(t *testing.T) {
	l := newLab(t, 1)
	for want, opt := range map[string]Options{
		"look up interface": {Interface: "eth99"},
		"ring size 100":     {Interface: "host", RingSize: 100},
		"ring size 32":      {Interface: "host", RingSize: 32},
		"100 frames":        {Interface: "host", RingSize: 64, Frames: 100},
		"MTU of 65536":      {Interface: "lo"},
	} {
		d, err := Open(l.filter, opt)
		if err == nil {
			d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", opt, err, want)
		}
	}
}

func TestFrameSize(t *testing.T) {
	for _, test := range []struct{ mtu, size int }{
		{68, 2048}, {1500, 2048}, {1774, 2048}, {1775, 4096}, {3822, 4096}, {3823, 0}, {9000, 0},
	} {
		got, err := frameSize(test.mtu)
		if got != test.size || (err != nil) != (test.size == 0) {
			t.Errorf("MTU %d: %d, %v, want %d", test.mtu, got, err, test.size)
		}
	}
}

// The largest packets arrive with their tag and go out again.
func TestLargeMTU(t *testing.T) {
	for _, mtu := range []int{1774, 1775, 3400} {
		l := newLab(t, 1)
		l.must(netlink.LinkSetMTU(l.host, mtu))
		l.must(netlink.LinkSetMTU(l.peer, mtu))
		q := l.open(Options{Modes: []Mode{Copy}, RingSize: 64}).Queues()[0]
		frame := udp(t, vip, 1, make([]byte, mtu-28))
		frame = slices.Concat(frame[:12], []byte{0x81, 0, 0, 5}, frame[12:])
		l.send(frame)
		frames := receive(t, q, 1)
		if !bytes.Equal(frames[0].Bytes(), frame) {
			t.Errorf("MTU %d: frame of %d bytes arrived with %d", mtu, len(frame), frames[0].Len())
		}
		q.Release(frames)
	}
}

func TestMultiQueue(t *testing.T) {
	const queues = 4
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, queues)
		d := l.open(Options{Modes: []Mode{mode}, RingSize: 512})
		qs := d.Queues()
		if len(qs) != queues {
			t.Fatalf("%d queues", len(qs))
		}
		// The peer picks a transmit queue by flow, and a veth's transmit queue
		// is the other end's receive queue.
		const flows = 400
		for i := range flows {
			l.send(udp(t, vip, uint16(1000+i), []byte("flow")))
		}
		got := make([][]queue.Frame, queues)
		total, used := 0, 0
		for end := time.Now().Add(patience); total < flows && time.Now().Before(end); {
			for i, q := range qs {
				frames := receiveSome(t, q)
				got[i] = append(got[i], frames...)
				total += len(frames)
			}
		}
		for i, q := range qs {
			frames := got[i]
			t.Logf("queue %d: %d frames", i, len(frames))
			if len(frames) > 0 {
				used++
			}
			for j := range frames {
				turn(&frames[j])
			}
			if n, err := q.Send(frames); n != len(frames) || err != nil {
				t.Errorf("queue %d sent %d of %d, %v", i, n, len(frames), err)
			}
			wantHeld(t, q, 0)
		}
		// Without native XDP, a veth leaves its transmit queue's number where
		// that of the receive queue, plus one, is looked for: the first and the
		// second come in together and the last receives nothing.
		if mode == Copy && used != queues || used < queues-1 {
			t.Errorf("only %d queues received anything", used)
		}
		if total != flows {
			t.Errorf("%d frames arrived, want %d", total, flows)
		}
		for range flows {
			l.expect()
		}
	})
}

func TestQueuesInUse(t *testing.T) {
	l := newLab(t, 4)
	nic, err := ethtool.NewEthtool()
	l.must(err)
	defer nic.Close()
	set := func(ifname string, rx, tx uint32) {
		t.Helper()
		c, err := nic.GetChannels(ifname)
		l.must(err)
		c.RxCount, c.TxCount = rx, tx
		_, err = nic.SetChannels(ifname, c)
		l.must(err)
	}
	set("host", 2, 1)
	if _, err := Open(l.filter, Options{Interface: "host"}); err == nil || !strings.Contains(err.Error(), "ethtool -L host rx 1 tx 1") {
		t.Errorf("fewer transmit queues: %v", err)
	}
	set("peer", 2, 2)
	set("host", 2, 2)
	d := l.open(Options{RingSize: 64})
	if got := len(d.Queues()); got != 2 {
		t.Errorf("%d queues, want the 2 in use of 4", got)
	}
}

func TestOpenWhileDown(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		l.must(netlink.LinkSetDown(l.host))
		q := l.open(Options{Modes: []Mode{mode}, RingSize: 64}).Queues()[0]
		l.must(netlink.LinkSetUp(l.host))
		received := false
		for end := time.Now().Add(patience); !received && time.Now().Before(end); {
			l.send(udp(t, vip, 1, []byte("up at last")))
			l.must(q.Wait(10 * time.Millisecond))
			received = len(receiveSome(t, q)) > 0
		}
		if !received {
			t.Error("nothing received after the link came up")
		}
	})
}

// A queue that was closed gives its frames to the kernel. The VIP is on the
// interface here, so that they arrive somewhere.
func TestClosedQueuePasses(t *testing.T) {
	l := newLab(t, 1)
	addr, err := netlink.ParseAddr(vip.String() + "/32")
	l.must(err)
	l.must(netlink.AddrAdd(l.host, addr))
	socket := listen(t, vip.String()+":7777")
	d := l.open(Options{Modes: []Mode{Copy}, RingSize: 64})
	q := d.Queues()[0]

	l.send(udp(t, vip, 1, []byte("for weir")))
	if got := receive(t, q, 1); !bytes.Contains(got[0].Bytes(), []byte("for weir")) {
		t.Errorf("weir got % x", got[0].Bytes())
	}
	l.must(q.Close())
	l.send(udp(t, vip, 1, []byte("after the queue")))
	if got := socket(); got != "after the queue" {
		t.Errorf("kernel got %q", got)
	}
	l.must(d.Close())
	l.send(udp(t, vip, 1, []byte("after the device")))
	if got := socket(); got != "after the device" {
		t.Errorf("kernel got %q", got)
	}
}

func TestForeignProgram(t *testing.T) {
	l := newLab(t, 1)
	theirs, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "firewall", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	l.must(err)
	defer theirs.Close()
	for _, mode := range []xdplink.Mode{xdplink.Native, xdplink.Generic} {
		link, err := xdplink.Attach(theirs, l.host.Attrs().Index, mode)
		l.must(err)
		_, err = Open(l.filter, Options{Interface: "host"})
		var foreign *xdplink.ForeignProgramError
		if !errors.As(err, &foreign) || foreign.Name != "firewall" || foreign.Mode != mode {
			t.Errorf("%s: %v", mode, err)
		}
		t.Log(err)
		l.must(link.Close())
	}
	d := l.open(Options{RingSize: 64})
	l.must(d.Close())
}

// Another process's sockets on the queue, without an XDP program.
func TestQueueTaken(t *testing.T) {
	l := newLab(t, 1)
	c := socketConfig{ifindex: l.host.Attrs().Index, mode: Copy, frames: 512, frameSize: 2048, ringSize: 64}
	s, err := openSocket(c)
	l.must(err)
	defer s.Close()
	_, err = Open(l.filter, Options{Interface: "host", Modes: []Mode{Copy}, RingSize: 64})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v", err)
	}
	if err := xdplink.Foreign(l.host.Attrs().Index); err != nil {
		t.Errorf("after a failed Open: %v", err)
	}
}

// However the process ends, nothing of it stays on the interface.
func TestProcessKilled(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		cmd := exec.Command("/proc/self/exe") // starts in the namespace of this thread
		cmd.Env = append(os.Environ(), "WEIR_TEST_CHILD="+string(mode))
		stdin, err := cmd.StdinPipe()
		l.must(err)
		defer stdin.Close()
		stdout, err := cmd.StdoutPipe()
		l.must(err)
		l.must(cmd.Start())
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil || line != "open\n" {
			t.Errorf("child: %q, %v", line, err)
		}
		_, err = Open(l.filter, Options{Interface: "host", RingSize: 64})
		var foreign *xdplink.ForeignProgramError
		if !errors.As(err, &foreign) || foreign.PID != cmd.Process.Pid || foreign.Name != "weir_xdp" {
			t.Errorf("beside a second weir: %v", err)
		}
		l.must(cmd.Process.Kill())
		_ = cmd.Wait() // "signal: killed"
		if err := xdplink.Foreign(l.host.Attrs().Index); err != nil {
			t.Errorf("after the end of the process: %v", err)
		}
		d := l.open(Options{Modes: []Mode{mode}, RingSize: 64})
		l.send(udp(t, vip, 1, []byte("next")))
		receive(t, d.Queues()[0], 1)
	})
}
