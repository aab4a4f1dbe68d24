package translate

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
)

// transport changes the ports, the checksum and the maximum segment size in b,
// a TCP or UDP header and what follows in the packet or first fragment.
func (c *Change) transport(b []byte, p *packet.Parsed) {
	if p.Proto == packet.ProtoTCP {
		t := packet.TCP(b)
		t.SetSrcPort(c.SrcPort)
		t.SetDstPort(c.DstPort)
		t.SetChecksum(c.Delta.Apply(t.Checksum()))
		if c.MSS != 0 && p.TCPFlags&packet.TCPSyn != 0 {
			clampMSS(t, c.MSS)
		}
		return
	}
	u := packet.UDP(b)
	u.SetSrcPort(c.SrcPort)
	u.SetDstPort(c.DstPort)
	if u.Checksum() == 0 && p.Kind == packet.KindIPv4 && !packet.IsMapped(c.Dst) {
		n := u.Length()
		u.SetChecksum(u[:n].ComputeChecksum(packet.PseudoIPv6(c.Src, c.Dst, packet.ProtoUDP, uint32(n))))
		return
	}
	u.SetChecksum(c.Delta.ApplyUDP(u.Checksum()))
}

// TCP options (RFC 9293 §3.1).
const (
	tcpOptionEnd = 0
	tcpOptionNop = 1
	tcpOptionMSS = 2
	tcpMSSLen    = 4
)

// clampMSS lowers the maximum segment size option to at most mss, each one if
// there are several, as receivers differ in which they believe. Malformed
// options end the walk.
func clampMSS(t packet.TCP, mss uint16) {
	options := t.Options()
	for at := 0; at+1 < len(options); {
		n := int(options[at+1])
		switch kind := options[at]; {
		case kind == tcpOptionEnd:
			return
		case kind == tcpOptionNop:
			n = 1
		case n < 2 || n > len(options)-at:
			return
		case kind == tcpOptionMSS && n == tcpMSSLen:
			value := options[at+2 : at+tcpMSSLen]
			before := binary.BigEndian.Uint16(value)
			if before <= mss {
				break
			}
			binary.BigEndian.PutUint16(value, mss)
			after := mss
			if at%2 != 0 {
				// The value lies across two words of the sum, each half in
				// the other's place.
				before, after = bits.ReverseBytes16(before), bits.ReverseBytes16(after)
			}
			t.SetChecksum(packet.Update16(t.Checksum(), before, after))
		}
		at += n
	}
}

// identification returns the IPv4 identification for a whole packet with the
// given transport header: its checksum, see Change.Packet.
func identification(b []byte, proto uint8) uint16 {
	if proto == packet.ProtoTCP {
		return packet.TCP(b).Checksum()
	}
	return packet.UDP(b).Checksum()
}
