package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

func TestEcho(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{}).Queues()[0]
	client := l.wire(l.client, "c0")

	longest := l.udp(vip4, 7, 7, 1500-28)
	for _, tc := range []struct {
		name  string
		frame []byte
	}{
		{"ipv4", l.udp(vip4, 1, 1, 100)},
		{"ipv6", l.udp(vip6, 2, 2, 100)},
		{"shortest", l.udp(vip4, 3, 3, 4)},
		{"as long as the MTU", longest},
		{"tagged", tagged(l.udp(vip4, 4, 4, 100), 0x8100, 0x6000|42)},
		{"tagged, as long as the MTU", tagged(longest, 0x8100, 4094)},
		{"priority tag", tagged(l.udp(vip6, 5, 5, 100), 0x8100, 0xe000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client.send(tc.frame)
			frames := make([]queue.Frame, 1)
			receive(t, q, frames)
			if got := frames[0].Bytes(); !bytes.Equal(got, tc.frame) {
				t.Errorf("received\n got %x\nwant %x", got, tc.frame)
			}
			if frames[0].Start < queue.Headroom {
				t.Errorf("headroom is %d", frames[0].Start)
			}
			echo(t, q, frames)
			want := append([]byte(nil), tc.frame...)
			copy(want, tc.frame[6:12])
			copy(want[6:], tc.frame[:6])
			// The client's plain socket sees no tag: its kernel has taken it out.
			if binary.BigEndian.Uint16(want[12:]) == 0x8100 || binary.BigEndian.Uint16(want[12:]) == 0x88a8 {
				want = append(want[:12], want[16:]...)
			}
			if got := client.receive(arrival); !bytes.Equal(got, want) {
				t.Errorf("echoed\n got %x\nwant %x", got, want)
			}
		})
	}
	wantAllBack(t, q)
	if s := q.Stats(); s != (queue.Stats{}) {
		t.Errorf("stats: %+v", s)
	}
}

// TestTagOnTheWire checks that a tag is sent: the client reads it from the
// metadata its kernel has moved it to.
func TestTagOnTheWire(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{}).Queues()[0]
	client := l.wire(l.client, "c0")
	if err := unix.SetsockoptInt(client.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		t.Fatal(err)
	}
	client.send(tagged(l.udp(vip4, 1, 1, 64), 0x8100, 123))
	frames := make([]queue.Frame, 1)
	receive(t, q, frames)
	echo(t, q, frames)

	var buf, oob [2048]byte
	_, n, _, _, err := unix.Recvmsg(client.fd, buf[:], oob[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("control messages: %v, %v", messages, err)
	}
	// struct tpacket_auxdata (include/uapi/linux/if_packet.h): tp_vlan_tci is at 16.
	if tci := binary.NativeEndian.Uint16(messages[0].Data[16:]); tci != 123 {
		t.Errorf("tag on the wire is %d, want 123", tci)
	}
}

// TestBurst echoes many frames, returning slots in any order.
func TestBurst(t *testing.T) {
	const total, window = 10_000, 250
	l := newLab(t)
	q := l.open(Options{Slots: 512}).Queues()[0]
	client := l.wire(l.client, "c0")
	frames := make([]queue.Frame, window)
	seen := make([]bool, total)
	for sent := 0; sent < total; {
		l.in(l.client, func() {
			for range window {
				client.send(l.udp(vip4, 1, uint32(sent), 64))
				sent++
			}
		})
		receive(t, q, frames)
		rand.Shuffle(window, func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		echo(t, q, frames)
		for range window {
			frame := client.receive(arrival)
			if frame == nil {
				t.Fatalf("an echo is missing; %+v", q.Stats())
			}
			mark := binary.BigEndian.Uint32(frame[42:])
			if seen[mark] {
				t.Fatalf("frame %d came back twice", mark)
			}
			seen[mark] = true
		}
	}
	wantAllBack(t, q)
	if s := q.Stats(); s != (queue.Stats{}) {
		t.Errorf("stats: %+v", s)
	}
}

// TestOverflow checks that every frame that came is either received or counted.
func TestOverflow(t *testing.T) {
	const total = 10_000
	l := newLab(t)
	q := l.open(Options{Slots: 256}).Queues()[0]
	client := l.wire(l.client, "c0")
	send := func(n int) {
		l.in(l.client, func() {
			for range n {
				client.send(l.udp(vip4, 1, 1, 64))
			}
		})
	}
	send(total)
	slots := q.(*ringQueue).ring.slots
	frames := make([]queue.Frame, total)
	receive(t, q, frames[:slots])
	if n, _ := q.Receive(frames[slots:]); n != 0 {
		t.Errorf("received %d frames more than there are slots", n)
	}
	for end := time.Now().Add(arrival); q.Stats().ReceiveDropped < uint64(total-slots) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if want := (queue.Stats{ReceiveDropped: uint64(total - slots)}); q.Stats() != want {
		t.Errorf("stats %+v, want %+v", q.Stats(), want)
	}

	// All slots but the first come back: the kernel is stuck at the first.
	q.Release(frames[1:slots])
	send(1)
	for end := time.Now().Add(arrival); q.Stats().ReceiveDropped <= uint64(total-slots) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n, _ := q.Receive(frames[1:]); n != 0 {
		t.Errorf("received %d frames over a slot that is lent", n)
	}
	q.Release(frames[:1])
	send(slots)
	receive(t, q, frames[:slots])
	q.Release(frames[:slots])
	wantAllBack(t, q)
}

func TestGiant(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{SlotSize: 512}).Queues()[0]
	client := l.wire(l.client, "c0")
	fits, giant := 512-frameStart-42, 512-frameStart-41
	l.in(l.client, func() {
		client.send(l.udp(vip4, 1, 1, giant))
		client.send(l.udp(vip4, 1, 2, fits))
		client.send(l.udp(vip4, 1, 3, 1000))
		client.send(l.udp(vip4, 1, 4, 64))
	})
	frames := make([]queue.Frame, 2)
	receive(t, q, frames)
	for i, want := range []uint32{2, 4} {
		if got := binary.BigEndian.Uint32(frames[i].Bytes()[42:]); got != want {
			t.Errorf("frame %d is %d, want %d", i, got, want)
		}
	}
	q.Release(frames)
	wantAllBack(t, q)
	if want := (queue.Stats{ReceiveInvalid: 2}); q.Stats() != want {
		t.Errorf("stats %+v, want %+v", q.Stats(), want)
	}
}

func TestSendTooLong(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{SlotSize: 4096}).Queues()[0]
	client := l.wire(l.client, "c0")
	frames := make([]queue.Frame, 3)
	if q.Alloc(frames) != 3 {
		t.Fatal("no buffers")
	}
	for i, size := range []int{64, 3000, 64} {
		f := &frames[i]
		f.End += uint32(copy(f.Buf[f.Start:], udpFrame(l.d0, l.c0, client4, 1, bytes.Repeat([]byte{byte(i)}, size))))
	}
	if n, err := q.Send(frames); n != 2 || err != nil {
		t.Errorf("send: %d, %v; want 2", n, err)
	}
	for _, want := range []byte{0, 2} {
		if got := client.receive(arrival); got == nil || got[50] != want {
			t.Errorf("got %x, want frame %d", got, want)
		}
	}
	wantAllBack(t, q)
	if want := (queue.Stats{TransmitDropped: 1}); q.Stats() != want {
		t.Errorf("stats %+v, want %+v", q.Stats(), want)
	}
}

func TestAlloc(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{}).Queues()[0]
	frames := make([]queue.Frame, poolBuffers+1)
	if n := q.Alloc(frames); n != poolBuffers {
		t.Fatalf("got %d buffers, want %d", n, poolBuffers)
	}
	ids := make(map[uint64]bool)
	for i := range frames[:poolBuffers] {
		f := &frames[i]
		if f.Start != f.End || f.Start < queue.Headroom || len(f.Buf) < int(f.Start)+1514 {
			t.Fatalf("buffer %d: start %d, end %d of %d", i, f.Start, f.End, len(f.Buf))
		}
		ids[f.ID] = true
		f.Buf[0], f.Buf[len(f.Buf)-1] = byte(i), byte(i)
	}
	for i, f := range frames[:poolBuffers] {
		if f.Buf[0] != byte(i) || f.Buf[len(f.Buf)-1] != byte(i) {
			t.Fatalf("buffer %d overlaps another", i)
		}
	}
	if len(ids) != poolBuffers {
		t.Errorf("%d different ids", len(ids))
	}
	if n := q.Alloc(frames[poolBuffers:]); n != 0 {
		t.Error("got a buffer from an empty pool")
	}
	q.Release(frames[:poolBuffers])
	wantAllBack(t, q)
	defer func() {
		if recover() == nil {
			t.Error("giving a buffer back twice went unnoticed")
		}
	}()
	q.Release(frames[:1])
}

// TestUnfinishedChecksums lets the client's kernel send: it leaves checksums to
// a NIC that there is not.
func TestUnfinishedChecksums(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{}).Queues()[0]
	plain := l.wire(l.weir, "d0")
	l.in(l.client, func() {
		l.run("route", netlink.RouteAdd(&netlink.Route{Dst: prefix("198.51.100.0/24"), Gw: net.IPv4(10, 0, 0, 2)}))
		l.run("neighbour", netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: l.link("c0").Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.IPv4(10, 0, 0, 2), HardwareAddr: l.d0,
		}))
		conn, err := net.Dial("udp4", netip.AddrPortFrom(vip4, 80).String())
		l.run("dial", err)
		_, err = conn.Write([]byte("odd"))
		l.run("write", err)
		l.run("close", conn.Close())
		// Nobody answers: the first segment is all that is wanted.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		l.run("socket", err)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: vip4.As4(), Port: 80}); !errors.Is(err, unix.EINPROGRESS) {
			l.t.Errorf("connect: %v", err)
		}
		l.run("close", unix.Close(fd))
	})
	frames := make([]queue.Frame, 2)
	receive(t, q, frames)
	for i, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		raw := plain.receive(arrival)
		if raw == nil || raw[23] != protocol {
			t.Fatalf("frame %d on the plain socket: %x", i, raw)
		}
		if checksumsValid(raw) {
			t.Error("the lab's kernel finished the checksum, nothing is tested")
		}
		if got := frames[i].Bytes(); !checksumsValid(got) || got[23] != protocol {
			t.Errorf("wrong checksum: %x", got)
		}
	}
	q.Release(frames)
}

// checksumsValid recomputes an IPv4 frame's checksums with gopacket.
func checksumsValid(frame []byte) bool {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	var parts []gopacket.SerializableLayer
	for _, layer := range p.Layers() {
		switch layer := layer.(type) {
		case *layers.TCP:
			_ = layer.SetNetworkLayerForChecksum(p.NetworkLayer())
		case *layers.UDP:
			_ = layer.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
		parts = append(parts, layer.(gopacket.SerializableLayer))
	}
	return bytes.Equal(serialize(parts...)[:len(frame)], frame) // gopacket pads short frames
}

func TestNoAllocs(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{}).Queues()[0]
	client := l.wire(l.client, "c0")
	const runs, batch = 100, 8
	l.in(l.client, func() {
		for i := range (runs + 1) * batch {
			client.send(tagged(l.udp(vip4, uint16(i), 1, 64), 0x8100, 5))
		}
	})
	frames, own := make([]queue.Frame, batch), make([]queue.Frame, 4)
	total := 0
	allocs := testing.AllocsPerRun(runs, func() {
		n, _ := q.Receive(frames)
		total += n
		_, _ = q.Send(frames[:n/2])
		q.Release(frames[n/2 : n])
		q.Release(own[:q.Alloc(own)])
	})
	if allocs != 0 {
		t.Errorf("%v allocations for each batch", allocs)
	}
	if total == 0 {
		t.Error("received nothing, nothing is tested")
	}
}
