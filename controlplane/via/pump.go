package via

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

const (
	// burst is how many packets are moved before anything else is looked at.
	burst = 1024

	// With more packets than busy in one turn, 2,000 a second, they are gathered
	// for a moment: to wake up for each would cost more than to move it.
	busy   = 100
	gather = 500 * time.Microsecond

	// inspection is how often it is made sure that packets still come this way.
	inspection = 5 * time.Second
)

// pump is what Run needs for one packet, made once.
type pump struct {
	n       *Network
	frame   queue.Frame
	parsed  packet.Parsed
	moved   int            // packets in this turn
	indexes map[string]int // of interfaces, as far as they have been asked for
	to      unix.SockaddrLinklayer
}

// pump moves packets from the device to the NICs.
func (n *Network) pump(ctx context.Context) error {
	p := &pump{n: n, indexes: make(map[string]int)}
	p.frame.Buf = make([]byte, queue.Headroom+deviceMTU)
	n.flows.start()
	var ended []*flow
	next := time.Now().Add(linger)
	inspect := next.Add(inspection)
	for more, gathers := false, false; ; {
		wakeUp := inspect
		if more {
			wakeUp = next
		}
		timeout := max(time.Until(wakeUp), 0)
		if _, err := n.waker.Wait(n.routing.tun, timeout); err != nil {
			return fmt.Errorf("wait for packets of %s: %w", n.routing.device, err)
		}
		ended = append(ended, n.flows.takeEnded()...)
		stopping := ctx.Err() != nil || n.flows.isStopped()
		if stopping {
			n.flows.finish() // its resets still go out, below
		}
		empty, err := p.drain()
		if err != nil || stopping {
			n.flows.finish()
			n.flows.forgetAll(ended)
			return err
		}
		if empty {
			n.flows.forgetAll(ended)
			ended = ended[:0]
		}
		if now := time.Now(); !now.Before(next) {
			more = n.flows.turn()
			next = now.Add(linger)
			if now.After(inspect) {
				n.inspect()
				inspect = now.Add(inspection)
			}
			gathers = p.moved > busy
			p.moved = 0
		} else {
			more = true
		}
		if gathers {
			time.Sleep(gather)
		}
	}
}

// inspect says when the way of packets was lost, once for each time.
func (n *Network) inspect() {
	problem := n.routing.keep()
	if (problem != nil) != n.troubled {
		n.troubled = problem != nil
		if n.troubled {
			n.log.Warn("checks of VIPs through backends were disturbed", "err", problem)
		}
	}
}

// drain moves what is in the device. It reports whether nothing is left.
func (p *pump) drain() (empty bool, err error) {
	for range burst {
		n, err := unix.Read(p.n.routing.tun, p.frame.Buf[queue.Headroom:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return true, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("read from %s: %w", p.n.routing.device, err)
		}
		p.moved++
		p.forward(n)
	}
	return false, nil
}

// forward sends the packet of n bytes that lies behind the headroom.
func (p *pump) forward(n int) {
	f := &p.frame
	f.Start, f.End = queue.Headroom-packet.EthernetLen, uint32(queue.Headroom+n)
	kind := uint16(packet.EtherTypeIPv4)
	if n > 0 && f.Buf[queue.Headroom]>>4 == 6 {
		kind = packet.EtherTypeIPv6
	}
	packet.Ethernet(f.Bytes()).Encode(&packet.EthernetFields{Type: kind})
	p.parsed.Decode(f.Bytes())
	if p.parsed.Problem != packet.ProblemNone {
		p.n.unfit.Add(1)
		return
	}
	at, ok := p.from()
	way := (*Way)(nil)
	if ok {
		opens := at.proto != packet.ProtoTCP || p.parsed.TCPFlags&(packet.TCPSyn|packet.TCPRst) == packet.TCPSyn
		way = p.n.flows.find(at, opens)
	}
	if way == nil {
		p.n.stray.Add(1)
		return
	}
	rw, has := &way.IPv4, way.Has4
	if kind == packet.EtherTypeIPv6 {
		rw, has = &way.IPv6, way.Has6
	}
	if !has || rw.Apply(f, &p.parsed) != stats.ReasonNone {
		p.n.unfit.Add(1)
		return
	}
	if err := p.send(way.Interface); err != nil {
		p.n.fail(err)
		return
	}
	p.n.sent.Add(1)
}

// from returns the socket that the packet comes from, as far as it can be told:
// a fragment that is not the first has no ports.
func (p *pump) from() (endpoint, bool) {
	d := &p.parsed
	at := endpoint{addr: d.Src, port: d.SrcPort, proto: d.Proto}
	switch {
	case d.Fragment && !d.FragmentFirst:
		return at, false
	case d.Proto == packet.ProtoTCP, d.Proto == packet.ProtoUDP:
		return at, true
	case d.Kind == packet.KindIPv4 && d.Proto == packet.ProtoICMPv4 && d.ICMPType == packet.ICMPv4EchoRequest,
		d.Kind == packet.KindIPv6 && d.Proto == packet.ProtoICMPv6 && d.ICMPType == packet.ICMPv6EchoRequest:
		// Both versions have the identifier in the same place.
		at.port = packet.ICMPv4(p.frame.Bytes()[d.L4:]).Ident()
		return at, true
	}
	return at, false
}

// send gives the frame to a NIC. An interface that was deleted and made again has
// another index, so that is looked up anew then.
func (p *pump) send(name string) error {
	frame := p.frame.Bytes()
	for try := 0; ; try++ {
		index, known := p.indexes[name]
		if !known {
			var err error
			if index, err = p.n.indexOf(name); err != nil {
				return fmt.Errorf("find interface %s: %w", name, err)
			}
			p.indexes[name] = index
		}
		// Both are in network byte order.
		p.to.Protocol = binary.NativeEndian.Uint16(frame[packet.EthernetLen-2:])
		p.to.Ifindex = index
		err := unix.Sendto(p.n.packets, frame, unix.MSG_DONTWAIT, &p.to)
		if err == nil {
			return nil
		}
		gone := errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
		if gone {
			delete(p.indexes, name)
		}
		if !gone || try > 0 {
			return fmt.Errorf("send by %s: %w", name, err)
		}
	}
}

// indexOf looks an interface up where Open was called, whatever the namespace of
// the calling thread.
func (n *Network) indexOf(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(n.packets, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

// fail counts a frame that was not sent.
func (n *Network) fail(err error) {
	n.notSent.Add(1)
	text := err.Error()
	n.lastError.Store(&text)
}
