// Package rewrite holds what is done to the packets of a flow once the flow has
// been decided: a new Ethernet header, and for a tunnel an outer IP header. (What
// NAT does to the packet itself is package translate's.)
//
// The problem it solves: everything that can be known when a backend's next hop
// is known is computed then, so that per packet there is only copying of ready
// bytes and the few fields that depend on the packet (lengths, traffic class,
// checksum). A Rewrite is small and makes no decision of its own, so that the
// XDP program could one day repeat it.
package rewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

// OuterTTL is the TTL or hop limit of an outer header, the default of RFC 1700
// that RFC 2003 section 3.1 and RFC 2473 section 6.3 point to.
const OuterTTL = 64

const (
	ethernetLen = 14
	taggedLen   = 18
	ipv4Len     = 20
	ipv6Len     = 40

	ipv6AddressLen = 16
	ipv6Addresses  = 8 // offset of both, which end the header

	// spreadBits are the low bits of an outer IPv4 source that carry the
	// flow's hash, as in Katran; of an IPv6 source it is twice as many.
	spreadBits = 16
)

// Link is how a frame leaves: by which interface and to whom on the link.
type Link struct {
	Egress uint16 // index into Snapshot.Interfaces
	Src    packet.MAC
	Dst    packet.MAC
	VLAN   uint16 // 802.1Q VLAN ID, 0 for an untagged frame
	MTU    int    // largest IP packet in bytes
}

// Rewrite is made by DSR, IPIP or NAT and never changed afterwards. It fits into a
// cache line, so that a packet waits for no more than one.
type Rewrite struct {
	Egress   uint16
	l2Len    uint8
	outerLen uint8 // 0 without a tunnel
	spread   bool  // the outer source's low bits depend on the flow
	inner    uint8 // protocol number of what is in an IPv6 tunnel
	mtu      uint16
	l2       [taggedLen]byte
	outerSum uint16 // of the outer IPv4 header, fields that vary taken as zero

	// outer is the whole outer IPv4 header, or the addresses of the IPv6 one.
	outer [2 * ipv6AddressLen]byte
}

// DSR makes a Rewrite that changes the Ethernet header alone (L2 direct server
// return): the packet reaches the backend as the client sent it, TTL included,
// since a switch would not have touched it either. ipv6 is the packets' family.
func DSR(link Link, ipv6 bool) (Rewrite, error) {
	return newRewrite(link, ipv6)
}

// NAT makes a Rewrite for packets whose addresses package translate changes: it
// is for Frame alone. ipv6 is the family of the backend's address.
func NAT(link Link, ipv6 bool) (Rewrite, error) { return newRewrite(link, ipv6) }

// Tunnel says how an outer header is addressed.
type Tunnel struct {
	// Source is the outer source address: of this box, or, with Spread, the
	// first address of a prefix reserved for it.
	Source netip.Addr

	// Destination is the backend's address, of Source's family.
	Destination netip.Addr

	// Spread puts a hash of the flow into the low 16 bits of an IPv4 source
	// or the low 32 bits of an IPv6 source, so that the backend's NIC spreads
	// tunnelled flows over its queues. Answers never go to that address.
	Spread bool
}

// IPIP makes a Rewrite that puts an IPv4 (RFC 2003, RFC 4213 for 6in4) or IPv6
// (RFC 2473) header before the packet. innerIPv6 is the family of the packets,
// the tunnel's own follows from its addresses. The error says which address
// does not fit.
func IPIP(link Link, innerIPv6 bool, t Tunnel) (Rewrite, error) {
	if t.Source.Is4() != t.Destination.Is4() || t.Source.Is4In6() || t.Destination.Is4In6() ||
		!t.Source.IsValid() || !t.Destination.IsValid() {
		return Rewrite{}, fmt.Errorf("build tunnel header: source %s and destination %s are not of one family",
			t.Source, t.Destination)
	}
	r, err := newRewrite(link, t.Source.Is6())
	if err != nil {
		return Rewrite{}, err
	}
	r.spread = t.Spread
	inner := uint8(packet.ProtoIPv4)
	if innerIPv6 {
		inner = packet.ProtoIPv6
	}
	if t.Source.Is4() {
		r.outerLen = ipv4Len
		r.setOuter4(inner, t)
	} else {
		r.outerLen = ipv6Len
		r.setOuter6(inner, t)
	}
	return r, nil
}

func newRewrite(link Link, ipv6 bool) (Rewrite, error) {
	if link.MTU < 68 || link.MTU > 65535 {
		return Rewrite{}, fmt.Errorf("build rewrite: MTU %d is out of range", link.MTU)
	}
	if link.VLAN > 4094 {
		return Rewrite{}, fmt.Errorf("build rewrite: VLAN %d is out of range", link.VLAN)
	}
	if link.Dst == (packet.MAC{}) {
		return Rewrite{}, errors.New("build rewrite: no destination MAC")
	}
	r := Rewrite{Egress: link.Egress, mtu: uint16(link.MTU), l2Len: ethernetLen}
	copy(r.l2[0:], link.Dst[:])
	copy(r.l2[6:], link.Src[:])
	etherType := uint16(packet.EtherTypeIPv4)
	if ipv6 {
		etherType = packet.EtherTypeIPv6
	}
	if link.VLAN != 0 {
		r.l2Len = taggedLen
		binary.BigEndian.PutUint16(r.l2[12:], packet.EtherTypeVLAN)
		binary.BigEndian.PutUint16(r.l2[14:], link.VLAN)
		binary.BigEndian.PutUint16(r.l2[16:], etherType)
	} else {
		binary.BigEndian.PutUint16(r.l2[12:], etherType)
	}
	return r, nil
}

// setOuter4 prepares an IPv4 header. Don't Fragment is always set, which RFC
// 2003 section 3.1 allows. For 6in4 it is a deviation on purpose: with a static
// tunnel MTU, RFC 4213 section 3.2.1 forbids the flag. But whatever does not fit
// is to be dropped and counted here and not shredded further on. Such a datagram
// is atomic, so its identification may be zero (RFC 6864 section 4.1).
func (r *Rewrite) setOuter4(proto uint8, t Tunnel) {
	h := r.outer[:ipv4Len]
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[6:], 0x4000)
	h[8] = OuterTTL
	h[9] = proto
	src, dst := t.Source.As4(), t.Destination.As4()
	copy(h[12:], src[:])
	copy(h[16:], dst[:])
	if t.Spread {
		h[14], h[15] = 0, 0
	}
	r.outerSum = uint16(packet.Sum(h, 0))
}

func (r *Rewrite) setOuter6(proto uint8, t Tunnel) {
	r.inner = proto
	src, dst := t.Source.As16(), t.Destination.As16()
	copy(r.outer[:], src[:])
	copy(r.outer[ipv6AddressLen:], dst[:])
}

// Apply rewrites the packet in f in place, using the headroom before it. p is
// what packet.Parsed.Decode made of f.Bytes(). If the packet may not go out
// like this, the reason is returned and f left as it was.
//
// Without a tunnel, a packet from the station that it would go to is refused:
// that one balances the same VIP and has weir for a backend, and nothing else
// would end the loop, as no TTL runs out. With a tunnel it may be the gateway
// that both the client and the backend are behind.
func (r *Rewrite) Apply(f *queue.Frame, p *packet.Parsed) stats.Reason {
	if r.outerLen != 0 {
		return r.encapsulate(f, p)
	}
	const address = 1<<48 - 1
	to, ends := binary.LittleEndian.Uint64(r.l2[:]), binary.LittleEndian.Uint64(r.l2[6:])
	switch source := binary.LittleEndian.Uint64(f.Buf[f.Start+6:]); {
	case (source^to)&address == 0:
		return stats.Looped
	case p.End-p.L3 > uint32(r.mtu):
		return stats.TooBig
	case p.L3 != ethernetLen || r.l2Len != ethernetLen:
		r.Frame(f, f.Start+p.L3)
		return stats.ReasonNone
	}
	h := (*[ethernetLen]byte)(f.Buf[f.Start:])
	binary.LittleEndian.PutUint64(h[:], to)
	binary.LittleEndian.PutUint64(h[6:], ends)
	return stats.ReasonNone
}

// Relay sends the packet in f on to another station as it is, but for the MAC
// addresses: with the VLAN tag that it came with, and no tunnel. p is what Decode
// made of f.Bytes(). It takes one hop off, since nothing else would end a loop of
// nodes that give a packet to each other: the caller must have seen that more
// than one is left. A packet longer than the link's MTU is left as it was.
func (r *Rewrite) Relay(f *queue.Frame, p *packet.Parsed) stats.Reason {
	if p.End-p.L3 > uint32(r.mtu) {
		return stats.TooBig
	}
	b := f.Bytes()
	copy(b[:packet.EthernetLen-2], r.l2[:])
	if p.Kind == packet.KindIPv4 {
		packet.IPv4(b[p.L3:p.End]).DecrementTTL()
	} else {
		packet.IPv6(b[p.L3:p.End]).DecrementHopLimit()
	}
	return stats.ReasonNone
}

// Station returns the destination on the link.
func (r *Rewrite) Station() packet.MAC { return packet.Ethernet(r.l2[:]).Dst() }

// MTU returns the longest IP packet in bytes that the link takes, which is what
// Relay does.
func (r *Rewrite) MTU() uint32 { return uint32(r.mtu) }

// Room returns the longest IP packet in bytes that Apply or Frame takes.
func (r *Rewrite) Room() uint32 { return uint32(r.mtu) - uint32(r.outerLen) }

// Outer returns the destination of the outer header; ok is false without a
// tunnel.
func (r *Rewrite) Outer() (destination [16]byte, ok bool) {
	switch r.outerLen {
	case ipv4Len:
		return packet.Mapped([4]byte(r.outer[16:])), true
	case ipv6Len:
		return [16]byte(r.outer[ipv6AddressLen:]), true
	}
	return destination, false
}

// IsSource tells whether outer headers can have this source, IPv4-mapped for
// IPv4.
func (r *Rewrite) IsSource(a *[16]byte) bool {
	source, varies := packet.Mapped([4]byte(r.outer[12:])), spreadBits/8
	if r.outerLen == ipv6Len {
		source, varies = [16]byte(r.outer[:]), 2*spreadBits/8
	}
	if r.spread {
		fixed := len(source) - varies
		copy(source[fixed:], a[fixed:])
	}
	return r.outerLen != 0 && source == *a
}

// Frame puts the Ethernet header before the IP packet that begins at l3 in
// f.Buf. Nothing else is changed.
func (r *Rewrite) Frame(f *queue.Frame, l3 uint32) {
	f.Start = l3 - uint32(r.l2Len)
	b := f.Buf[f.Start:]
	if r.l2Len == ethernetLen {
		h := (*[ethernetLen]byte)(b)
		*h = [ethernetLen]byte(r.l2[:])
		return
	}
	*(*[taggedLen]byte)(b) = r.l2
}

// encapsulate puts the outer headers before the packet in f. The inner TTL goes down
// by one, as for any forwarded packet (RFC 2003 section 3.1, RFC 2473 section 3.1);
// the traffic class, explicit congestion notification included, is copied outward
// (RFC 2983 section 3, RFC 6040 section 4.1).
func (r *Rewrite) encapsulate(f *queue.Frame, p *packet.Parsed) stats.Reason {
	length := p.End - p.L3
	switch {
	case length > r.Room():
		return stats.TooBig
	case p.TTL <= 1:
		return stats.TTLExpired
	}
	l3 := f.Start + p.L3
	f.End = f.Start + p.End // Ethernet padding is no part of the inner packet
	inner := f.Buf[l3:f.End]
	if p.Kind == packet.KindIPv4 {
		packet.IPv4(inner).DecrementTTL()
	} else {
		packet.IPv6(inner).DecrementHopLimit()
	}
	if r.outerLen == ipv4Len && r.l2Len == ethernetLen {
		r.frame4(f, l3, length, p)
		return stats.ReasonNone
	}
	start := l3 - uint32(r.outerLen)
	if outer := f.Buf[start:]; r.outerLen == ipv4Len {
		*(*[ipv4Len]byte)(outer) = [ipv4Len]byte(r.outer[:])
		r.finishOuter4(outer, length, p)
	} else {
		*(*[2 * ipv6AddressLen]byte)(outer[ipv6Addresses:]) = r.outer
		r.finishOuter6(outer, length, p)
	}
	r.Frame(f, start)
	return stats.ReasonNone
}

// frame4 puts both headers of an untagged tunnel over IPv4 before the packet of some
// length that begins at l3: what Frame, a copy and finishOuter4 do, in whole words.
func (r *Rewrite) frame4(f *queue.Frame, l3, length uint32, p *packet.Parsed) {
	const headers = ethernetLen + ipv4Len
	f.Start = l3 - headers
	h := (*[headers]byte)(f.Buf[f.Start:])
	total := length + ipv4Len
	sum := uint32(r.outerSum) + uint32(p.TrafficClass) + total
	source := binary.LittleEndian.Uint64(r.outer[10:]) // behind the checksum, which is zero
	if r.spread {
		low := uint16(flow.HashStable(&p.Tuple) >> (64 - spreadBits))
		source |= uint64(bits.ReverseBytes16(low)) << 32
		sum += uint32(low)
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.LittleEndian.PutUint64(h[0:], binary.LittleEndian.Uint64(r.l2[0:]))
	binary.LittleEndian.PutUint64(h[8:], binary.LittleEndian.Uint64(r.l2[8:])|uint64(r.outer[0])<<48|uint64(p.TrafficClass)<<56)
	binary.LittleEndian.PutUint64(h[16:], binary.LittleEndian.Uint64(r.outer[2:])|uint64(bits.ReverseBytes16(uint16(total))))
	binary.LittleEndian.PutUint64(h[24:], source|uint64(bits.ReverseBytes16(^uint16(sum))))
	binary.LittleEndian.PutUint16(h[32:], binary.LittleEndian.Uint16(r.outer[18:]))
}

func (r *Rewrite) finishOuter4(h []byte, length uint32, p *packet.Parsed) {
	_ = h[ipv4Len-1]
	total := length + ipv4Len
	sum := uint32(r.outerSum) + uint32(p.TrafficClass) + total
	h[1] = p.TrafficClass
	binary.BigEndian.PutUint16(h[2:], uint16(total))
	if r.spread {
		low := uint16(flow.HashStable(&p.Tuple) >> (64 - spreadBits))
		binary.BigEndian.PutUint16(h[14:], low)
		sum += uint32(low)
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
}

// finishOuter6 sets the flow label from the flow's hash (RFC 6438 section 3),
// so that routers and NICs on the way can spread tunnelled flows.
func (r *Rewrite) finishOuter6(h []byte, length uint32, p *packet.Parsed) {
	_ = h[ipv6Len-1]
	hash := flow.HashStable(&p.Tuple)
	binary.BigEndian.PutUint32(h[0:], 6<<28|uint32(p.TrafficClass)<<20|uint32(hash)&0xfffff)
	binary.BigEndian.PutUint32(h[4:], length<<16|uint32(r.inner)<<8|OuterTTL)
	if r.spread {
		binary.BigEndian.PutUint32(h[20:], uint32(hash>>32))
	}
}
