package afpacket

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// TestGuard checks who sees which frame, while weir runs and when it does not,
// which shows that the kernel would have taken them.
func TestGuard(t *testing.T) {
	for _, tc := range []struct {
		name       string
		classifier bool
	}{{"tcx", false}, {"cls_bpf", true}} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			client, server := l.wire(l.client, "c0"), l.wire(l.server, "s0")
			local := listenUDP(l, vipLocal.String())
			host := listenUDP(l, weirAddr.String())

			// What comes out at the server and on the sockets, up to the
			// marks sent last.
			seen := func() (forwarded, delivered []uint32) {
				l.in(l.client, func() {
					for _, frame := range [][]byte{
						l.udp(vip4, 1, 11, 100), l.udp(vipLocal, 1, 12, 100), l.udp(notVIP, 1, 13, 100),
						l.udp(notVIP, 1, 99, 100), l.udp(vipLocal, 1, 14, 100), l.udp(weirAddr, 1, 99, 100),
					} {
						client.send(frame)
					}
				})
				for {
					frame := server.receive(arrival)
					if frame == nil {
						t.Fatal("a frame that is not for a VIP was not forwarded")
					}
					if !bytes.Equal(frame[:6], serverMAC()) {
						continue
					}
					mark := binary.BigEndian.Uint32(frame[42:])
					if mark == 99 {
						break
					}
					forwarded = append(forwarded, mark)
				}
				if mark, ok := host(arrival); !ok || mark != 99 {
					t.Fatal("a frame for the host was not delivered")
				}
				for {
					mark, ok := local(0)
					if !ok {
						return forwarded, delivered
					}
					delivered = append(delivered, mark)
				}
			}

			wantSeen := func(when string, forwarded, delivered []uint32) {
				t.Helper()
				f, d := seen()
				if !equal(f, forwarded) || !equal(d, delivered) {
					t.Errorf("%s: kernel forwarded %v and delivered %v, want %v and %v", when, f, d, forwarded, delivered)
				}
			}

			wantSeen("before", []uint32{11, 13}, []uint32{12, 14})
			d := l.open(Options{classifier: tc.classifier})
			received := ipReceived(l)
			wantSeen("open", []uint32{13}, nil)
			if got := ipReceived(l) - received; got != 3 {
				t.Errorf("kernel counted %d IP packets, want the 3 not for a VIP", got)
			}
			frames := make([]queue.Frame, 4)
			receive(t, d.Queues()[0], frames[:3])
			if n, _ := d.Queues()[0].Receive(frames[3:]); n != 0 {
				t.Error("received a frame that is not for a VIP")
			}
			for i, want := range [][]byte{l.udp(vip4, 1, 11, 100), l.udp(vipLocal, 1, 12, 100), l.udp(vipLocal, 1, 14, 100)} {
				if got := frames[i].Bytes(); !bytes.Equal(got, want) {
					t.Errorf("frame %d\n got %x\nwant %x", i, got, want)
				}
				if frames[i].Start < queue.Headroom {
					t.Errorf("frame %d has %d bytes of headroom", i, frames[i].Start)
				}
			}
			for range 2 {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
			wantSeen("closed", []uint32{11, 13}, []uint32{12, 14})
		})
	}
}

func equal(a, b []uint32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// listenUDP binds a socket in weir's namespace. The function returned reads the
// mark of the next datagram.
func listenUDP(l *lab, addr string) func(timeout time.Duration) (uint32, bool) {
	var conn net.PacketConn
	l.in(l.weir, func() {
		lc := net.ListenConfig{}
		c, err := lc.ListenPacket(l.t.Context(), "udp4", net.JoinHostPort(addr, "4000"))
		l.run("listen", err)
		conn = c
	})
	l.t.Cleanup(func() { _ = conn.Close() })
	return func(timeout time.Duration) (uint32, bool) {
		var buf [2000]byte
		// A deadline in the past fails even if there is something to read.
		_ = conn.SetReadDeadline(time.Now().Add(max(timeout, 20*time.Millisecond)))
		n, _, err := conn.ReadFrom(buf[:])
		if err != nil || n < 4 {
			return 0, false
		}
		return binary.BigEndian.Uint32(buf[:]), true
	}
}

// ipReceived is how many IP packets weir's kernel has received (RFC 4293,
// ipInReceives).
func ipReceived(l *lab) int {
	var text []byte
	l.in(l.weir, func() {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		l.run("read counters", err)
		text = b
	})
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		names := strings.Fields(line)
		if len(names) == 0 || names[0] != "Ip:" {
			continue
		}
		for j, name := range names {
			if name == "InReceives" {
				n := 0
				for _, digit := range strings.Fields(lines[i+1])[j] {
					n = n*10 + int(digit-'0')
				}
				return n
			}
		}
	}
	l.t.Fatal("no InReceives")
	return 0
}

func TestClassifierCleanUp(t *testing.T) {
	l := newLab(t)
	count := func() (qdiscs, ours, others int) {
		l.in(l.weir, func() {
			link := l.link("d0")
			list, err := netlink.QdiscList(link)
			l.run("list qdiscs", err)
			for _, q := range list {
				if q.Type() == "clsact" {
					qdiscs++
				}
			}
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, err := netlink.FilterList(link, parent)
				l.run("list filters", err)
				for _, f := range filters {
					if f.Attrs().Handle == filterHandle {
						ours++
					} else {
						others++
					}
				}
			}
		})
		return qdiscs, ours, others
	}
	want := func(when string, qdiscs, ours, others int) {
		t.Helper()
		if q, o, x := count(); q != qdiscs || o != ours || x != others {
			t.Errorf("%s: %d qdiscs, %d of our filters, %d others; want %d, %d, %d", when, q, o, x, qdiscs, ours, others)
		}
	}

	want("before", 0, 0, 0)
	killed := l.open(Options{classifier: true})
	want("first open", 1, 1, 0)
	next := l.open(Options{classifier: true})
	want("opened over a stale one", 1, 1, 0)
	if err := killed.Close(); err != nil {
		t.Error(err)
	}
	want("first closed: the filter is not its own any more", 1, 1, 0)
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	want("second closed: the qdisc was taken over with the filter", 0, 0, 0)

	l.in(l.weir, func() {
		link := l.link("d0")
		l.run("add qdisc", netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	})
	foreign := l.open(Options{classifier: true})
	if err := foreign.Close(); err != nil {
		t.Error(err)
	}
	want("closed on somebody else's qdisc", 1, 0, 0)
	l.in(l.weir, func() {
		link := l.link("d0")
		l.run("remove qdisc", netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	})
	alone := l.open(Options{classifier: true})
	if err := alone.Close(); err != nil {
		t.Error(err)
	}
	want("closed alone", 0, 0, 0)

	shared := l.open(Options{classifier: true})
	l.in(l.weir, func() {
		l.run("add filter", netlink.FilterAdd(&netlink.BpfFilter{Fd: shared.filter.TC().FD(), Name: "other", FilterAttrs: netlink.FilterAttrs{
			LinkIndex: l.link("d0").Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS, Priority: 7, Protocol: unix.ETH_P_ALL}}))
	})
	if err := shared.Close(); err != nil {
		t.Error(err)
	}
	want("closed with another's filter there", 1, 0, 1)
}

func TestOpenErrors(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		name string
		opt  Options
		want string
	}{
		{"no such interface", Options{Interface: "none0"}, "look up interface none0"},
		{"not Ethernet", Options{Interface: "lo"}, "not an Ethernet interface"},
		{"slot too large", Options{Interface: "d0", SlotSize: 1 << 20}, "slot size"},
		{"too many slots", Options{Interface: "d0", Slots: 1 << 30}, "slots is not between"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var err error
			l.in(l.weir, func() {
				var d *Device
				if d, err = Open(nil, tc.opt); err == nil {
					_ = d.Close()
				}
			})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

// TestFanout checks that queues share frames by flow.
func TestFanout(t *testing.T) {
	l := newLab(t)
	d := l.open(Options{Queues: 3})
	client := l.wire(l.client, "c0")
	const flows, each = 64, 8
	l.in(l.client, func() {
		for i := range uint32(flows * each) {
			client.send(l.udp(vip4, uint16(1000+i%flows), i, 64))
		}
	})

	queueOf := make(map[uint16]int)
	perQueue := make([]int, 3)
	total := 0
	for end := time.Now().Add(arrival); total < flows*each; {
		if time.Now().After(end) {
			t.Fatalf("received %d of %d frames", total, flows*each)
		}
		for i, q := range d.Queues() {
			frames := make([]queue.Frame, 32)
			n, err := q.Receive(frames)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames[:n] {
				port := binary.BigEndian.Uint16(f.Bytes()[34:])
				if before, ok := queueOf[port]; ok && before != i {
					t.Errorf("flow %d is on queues %d and %d", port, before, i)
				}
				queueOf[port] = i
				perQueue[i]++
			}
			total += n
			q.Release(frames[:n])
		}
	}
	used := 0
	for i, q := range d.Queues() {
		wantAllBack(t, q)
		if perQueue[i] > 0 {
			used++
		}
	}
	if len(queueOf) != flows || used < 2 {
		t.Errorf("%d flows on queues %v, want %d spread over several", len(queueOf), perQueue, flows)
	}

	// What one queue sends may not come back on another.
	q := d.Queues()[0]
	frames := make([]queue.Frame, 1)
	if q.Alloc(frames) != 1 {
		t.Fatal("no buffer")
	}
	frames[0].End += uint32(copy(frames[0].Buf[frames[0].Start:], udpFrame(l.c0, l.d0, vip4, 1, make([]byte, 64))))
	if n, err := q.Send(frames); n != 1 || err != nil {
		t.Fatalf("send: %d, %v", n, err)
	}
	if client.receive(arrival) == nil {
		t.Error("the frame sent did not arrive")
	}
	for i, q := range d.Queues() {
		if n, _ := q.Receive(frames); n != 0 {
			t.Errorf("queue %d received what queue 0 sent", i)
		}
	}
}
