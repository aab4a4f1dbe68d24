package generator

import (
	"context"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
	"weir/lab/netlab"
	"weir/perf/sink"
)

// A wire is a generator's end of a cable and the other one, which takes frames.
type wire struct {
	near, far *netlab.Host
	socket    int // that sees what arrives at the far end
}

func newWire(t testing.TB) wire {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := netlab.New("generator")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	host := func(name string) *netlab.Host {
		h, err := lab.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"} {
			if err := h.Sysctl(key, "1"); err != nil {
				t.Fatal(err)
			}
		}
		return h
	}
	w := wire{near: host("near"), far: host("far")}
	if err := w.near.ConnectTo(w.far, netlab.Iface{Name: "near"}, netlab.Iface{Name: "far"}); err != nil {
		t.Fatal(err)
	}
	// A veth takes redirected frames if the other end has GRO, which holds
	// segments back, or an XDP program, as this sink that takes nothing.
	link, err := w.far.Link("far")
	if err != nil {
		t.Fatal(err)
	}
	var s *sink.Sink
	err = w.far.Do(func() (err error) {
		s, err = sink.Open(sink.Options{Interface: link.Index, Port: 1, Hook: sink.XDP})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w.socket = w.capture(t)
	return w
}

func (w wire) index(t testing.TB) int {
	t.Helper()
	link, err := w.near.Link("near")
	if err != nil {
		t.Fatal(err)
	}
	return link.Index
}

// refused returns how many frames the interface has not taken so far.
func (w wire) refused(t testing.TB) (n uint64) {
	t.Helper()
	err := w.near.Do(func() error {
		l, err := netlink.LinkByName("near")
		if err == nil {
			n = l.Attrs().Statistics.TxDropped
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start has a generator run, and returns what ends it.
func (w wire) start(t testing.TB, opt Options) (g *Generator, end func()) {
	t.Helper()
	opt.Interface = w.index(t)
	g, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.near.Do(func() error { return g.Run(ctx) }) }()
	return g, func() {
		t.Helper()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sendSome has the generator send at least n frames, and returns what it has
// offered when it has stopped.
func sendSome(t testing.TB, g *Generator, n uint64, perSecond int) (o Offered) {
	t.Helper()
	if err := g.SetRate(perSecond); err != nil {
		t.Fatal(err)
	}
	offered := func() Offered {
		o, err := g.Offered()
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	waitFor(t, func() bool { return offered().Frames >= n })
	if err := g.SetRate(0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { // the frame that it is at when told to stop
		before := o
		o = offered()
		return o == before
	})
	return o
}

// waitFor waits for what is bound to come.
func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

// capture returns a packet socket that sees what arrives at the far end.
func (w wire) capture(t testing.TB) int {
	t.Helper()
	var fd int
	err := w.far.Do(func() (err error) {
		link, err := netlink.LinkByName("far")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: link.Attrs().Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// captured returns all frames that have come: n of them.
func captured(t testing.TB, fd int, n uint64) (frames [][]byte) {
	t.Helper()
	b := make([]byte, 2048)
	waitFor(t, func() bool {
		for {
			m, _, err := unix.Recvfrom(fd, b, 0)
			if err == unix.EAGAIN {
				return uint64(len(frames)) >= n
			}
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, append([]byte(nil), b[:m]...))
		}
	})
	if uint64(len(frames)) != n {
		t.Fatalf("%d frames have arrived, %d were taken", len(frames), n)
	}
	return frames
}

// arrived has a generator with these options send some frames, and returns them
// as they arrive. No other generator runs on the wire.
func (w wire) arrived(t testing.TB, opt Options, n uint64, perSecond int) (frames [][]byte, o Offered, refused uint64) {
	t.Helper()
	before := w.refused(t)
	g, end := w.start(t, opt)
	defer end()
	o = sendSome(t, g, n, perSecond)
	refused = w.refused(t) - before
	frames = captured(t, w.socket, o.Frames-refused)
	bytes := refused * uint64(len(frames[0]))
	for _, b := range frames {
		bytes += uint64(len(b))
	}
	if bytes != o.Bytes {
		t.Errorf("%d bytes offered, want %d", o.Bytes, bytes)
	}
	return frames, o, refused
}
