package steer

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
)

// datagram is a key of the programs' memory of fragments.
type datagram struct {
	Source, Destination address
	Proto               uint32
	ID                  [4]byte
}

// oracle is the rule of bpf/steer.c and bpf/novip.h in Go, for an interface with
// ownMAC.
type oracle struct {
	set       Set
	datagrams map[datagram]bool
}

func newOracle(set Set) *oracle { return &oracle{set, make(map[datagram]bool)} }

func (o *oracle) isVIP(a netip.Addr) bool { return slices.Contains(o.set.VIPs, a) }

func (o *oracle) takes(frame []byte) bool {
	if len(frame) < 14 {
		return false
	}
	to, typ, body := frame[:6], binary.BigEndian.Uint16(frame[12:]), frame[14:]
	if typ == 0x8100 {
		if len(body) < 4 {
			return false
		}
		typ, body = binary.BigEndian.Uint16(body[2:]), body[4:]
	}
	own := bytes.Equal(to, ownMAC)
	switch typ {
	case 0x0806:
		return (own || bytes.Equal(to, broadcast)) && o.takesARP(body)
	case 0x86dd:
		return own && o.takesIP(body, true) || o.takesNeighbor(to, body)
	case 0x0800:
		return own && o.takesIP(body, false)
	}
	return false
}

func (o *oracle) takesARP(b []byte) bool {
	if len(b) < 28 || !bytes.Equal(b[:7], []byte{0, 1, 8, 0, 6, 4, 0}) {
		return false
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	switch b[7] {
	case 1:
		return o.isVIP(sender) || o.isVIP(target)
	case 2:
		return o.isVIP(sender)
	}
	return false
}

func (o *oracle) takesNeighbor(to, b []byte) bool {
	if len(b) < 40+24 || b[6] != 58 {
		return false
	}
	switch b[40] {
	case 135:
		return (bytes.Equal(to, ownMAC) || bytes.HasPrefix(to, groupMAC[:3])) && o.isVIP(netip.AddrFrom16([16]byte(b[48:])))
	case 136:
		return (bytes.Equal(to, ownMAC) || bytes.Equal(to, allNodes)) && o.isVIP(netip.AddrFrom16([16]byte(b[48:])))
	}
	return false
}

// ipPacket is what of an IP packet counts.
type ipPacket struct {
	src, dst    netip.Addr
	proto       uint8
	id          [4]byte
	later, more bool
	payload     []byte
}

func readIP(b []byte, v6 bool) (p ipPacket, ok bool) {
	if !v6 {
		if len(b) < 20 || b[0]>>4 != 4 || b[0]&0xf < 5 {
			return p, false
		}
		p.src, p.dst, p.proto = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[9]
		copy(p.id[:], b[4:6])
		p.more = b[6]&0x20 != 0
		p.later = b[6]&0x1f != 0 || b[7] != 0
		p.payload = b[min(len(b), int(b[0]&0xf)*4):]
		return p, true
	}
	if len(b) < 40 || b[0]>>4 != 6 {
		return p, false
	}
	p.src, p.dst, p.proto = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[6]
	p.payload = b[40:]
	if p.src.Is4In6() || p.dst.Is4In6() {
		return p, false
	}
	if p.proto == 44 {
		if len(b) < 48 {
			return p, false
		}
		p.proto, p.payload = b[40], b[48:]
		copy(p.id[:], b[44:48])
		offset := binary.BigEndian.Uint16(b[42:])
		p.later, p.more = offset>>3 != 0, offset&1 != 0
	}
	return p, true
}

func (p *ipPacket) ports() (src, dst uint16, ok bool) {
	if p.proto != 6 && p.proto != 17 || p.later || len(p.payload) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(p.payload), binary.BigEndian.Uint16(p.payload[2:]), true
}

func (o *oracle) takesIP(b []byte, v6 bool) bool {
	// To a VIP, all of it, whatever else is in the header.
	if v6 && len(b) >= 40 && o.isVIP(netip.AddrFrom16([16]byte(b[24:]))) {
		return true
	}
	if !v6 && len(b) >= 20 && o.isVIP(netip.AddrFrom4([4]byte(b[16:]))) {
		return true
	}
	p, ok := readIP(b, v6)
	if !ok || len(o.set.Shared)+len(o.set.Answers)+len(o.set.Tunnels) == 0 {
		return false
	}
	key := datagram{p.src.As16(), p.dst.As16(), uint32(p.proto), p.id}
	if p.later {
		return o.datagrams[key]
	}
	takes := false
	if src, dst, ok := p.ports(); ok {
		takes = o.isShared(p.dst, dst) || o.isAnswer(p.src, p.proto, src, p.dst)
	}
	if p.proto == 58 && v6 || p.proto == 1 && !v6 {
		takes = o.takesError(&p, v6)
	}
	if p.more && takes {
		o.datagrams[key] = true
	} else if p.more {
		delete(o.datagrams, key)
	}
	return takes
}

func (o *oracle) takesError(p *ipPacket, v6 bool) bool {
	if len(p.payload) < 8 {
		return false
	}
	kind, code := p.payload[0], p.payload[1]
	kinds, tooBig := []byte{3, 11, 12}, kind == 3 && code == 4
	if v6 {
		kinds, tooBig = []byte{1, 2, 3, 4}, kind == 2
	}
	q, ok := readIP(p.payload[8:], v6)
	if !ok || !slices.Contains(kinds, kind) {
		return false
	}
	if tooBig && (q.proto == 4 || q.proto == 41) && slices.Contains(o.set.Tunnels, q.dst) {
		return true
	}
	src, dst, ok := q.ports()
	if !ok {
		return false
	}
	return q.src == p.dst && o.isShared(q.src, src) || o.isAnswer(q.dst, q.proto, dst, p.dst)
}

func (o *oracle) isShared(a netip.Addr, port uint16) bool {
	return slices.ContainsFunc(o.set.Shared, func(s Shared) bool { return s.Addr == a && s.Lo <= port && port <= s.Hi })
}

func (o *oracle) isAnswer(from netip.Addr, proto uint8, port uint16, to netip.Addr) bool {
	return slices.Contains(o.set.Answers, Answers{from, proto, port}) && !slices.Contains(o.set.Local, to)
}
