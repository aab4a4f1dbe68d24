package via

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/health"
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

	// A device that is lost is made again after firstRepair, and if that fails,
	// after twice as long, up to lastRepair.
	firstRepair = time.Second
	lastRepair  = 30 * time.Second
)

// serve runs the pump, and makes the device again whenever it is lost.
func (n *Network) serve(ctx context.Context) {
	defer n.flows.finish()
	n.troubled[1] = n.routing.now.Load().why6 != nil // a box without IPv6 is no trouble
	pause := firstRepair
	for {
		started := time.Now()
		err := n.pump(ctx)
		if err == nil {
			return
		}
		if time.Since(started) > lastRepair {
			pause = firstRepair
		}
		n.lose(err)
		for lost := true; lost; {
			if !n.rest(ctx, pause) {
				return
			}
			pause = min(2*pause, lastRepair)
			lost = n.routing.open() != nil // checks say why
		}
		n.log.Info("VIPs can be checked through backends again", "device", n.Device())
	}
}

// lose gives the device up. Whoever waits for an answer now is told that it is
// not the backend's fault.
func (n *Network) lose(err error) {
	err = fmt.Errorf("the device %s was lost: %w", n.Device(), err)
	n.log.Warn("VIPs cannot be checked through backends until there is a device for it again", "err", err)
	n.routing.lose(err) // first: who begins now has no way, and who has begun is excused
	n.losses.Add(1)
	n.flows.pause()
	_ = n.steered.Swap(health.NewKernel(n)).Close() // its ICMP sockets have a mark that may become another's
}

// rest waits. It reports false if Run is to end.
func (n *Network) rest(ctx context.Context, pause time.Duration) bool {
	for until := time.Now().Add(pause); ; {
		left := time.Until(until)
		if ctx.Err() != nil || n.flows.isStopped() {
			return false
		}
		if left <= 0 {
			return true
		}
		if _, err := n.waker.Wait(-1, left); err != nil { // poll(2) passes over -1
			time.Sleep(min(left, linger))
		}
	}
}

// pump is what Run needs for one packet, made once.
type pump struct {
	n       *Network
	frame   queue.Frame
	parsed  packet.Parsed
	moved   int            // packets in this turn
	indexes map[string]int // of interfaces, as far as they have been asked for
	to      unix.SockaddrLinklayer
}

// pump moves packets from the device to the NICs. It returns nil when Run is to
// end, and an error when the device is lost.
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
			return fmt.Errorf("wait for packets: %w", err)
		}
		ended = append(ended, n.flows.takeEnded()...)
		stopping := ctx.Err() != nil || n.flows.isStopped()
		if stopping {
			n.flows.finish() // its resets still go out, below
		}
		empty, err := p.drain()
		if err != nil || stopping {
			n.flows.forgetAll(ended)
			if stopping {
				return nil
			}
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
	for i, is6 := range []bool{false, true} {
		problem := n.routing.keep(is6)
		if (problem != nil) == n.troubled[i] {
			continue
		}
		n.troubled[i] = problem != nil
		if problem != nil {
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
			return false, fmt.Errorf("read from it: %w", err)
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
