package translate

import "weir/dataplane/packet"

// message is the beginning of an ICMP or ICMPv6 error. rest is its second word:
// pointer, MTU, or nothing.
type message struct {
	typ, code uint8
	rest      uint32
}

// put writes the message without its checksum. The fields are in the same
// place in both versions.
func (m message) put(b packet.ICMPv6) {
	b.SetType(m.typ)
	b.SetCode(m.code)
	b.SetMTU(m.rest)
}

// Codes of ICMPv4 errors (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
const (
	unreachable4Net             = 0
	unreachable4Host            = 1
	unreachable4Protocol        = 2
	unreachable4Port            = 3
	unreachable4SourceRoute     = 5
	unreachable4NetUnknown      = 6
	unreachable4HostUnknown     = 7
	unreachable4Isolated        = 8
	unreachable4NetProhibited   = 9
	unreachable4HostProhibited  = 10
	unreachable4NetTOS          = 11
	unreachable4HostTOS         = 12
	unreachable4Prohibited      = 13
	unreachable4PrecedenceBelow = 15
	param4Pointer               = 0
	param4Length                = 2
)

// Codes of ICMPv6 errors (RFC 4443 §3).
const (
	unreachable6NoRoute    = 0
	unreachable6Prohibited = 1
	unreachable6Scope      = 2
	unreachable6Address    = 3
	unreachable6Port       = 4
	param6Field            = 0
	param6NextHeader       = 1
)

// Where the two headers have the field that says what the payload is.
const (
	pointer4Protocol   = 9
	pointer6NextHeader = 6
)

// icmp46 translates an ICMPv4 error (RFC 7915 §4.2); it reports false for one
// that IPv6 has no words for. mtu is what a "fragmentation needed" says, total
// the length of the packet that it quotes, and limit the most to say.
func icmp46(p *packet.Parsed, m packet.ICMPv4, mtu uint32, total uint16, limit uint32) (message, bool) {
	switch p.ICMPType {
	case packet.ICMPv4Unreachable:
		return unreachable46(p.ICMPCode, mtu, total, limit)
	case packet.ICMPv4TimeExceeded:
		return message{typ: packet.ICMPv6TimeExceeded, code: p.ICMPCode}, true
	case packet.ICMPv4ParamProblem:
		if p.ICMPCode != param4Pointer && p.ICMPCode != param4Length {
			return message{}, false
		}
		pointer, ok := pointer46(uint8(m.Ident() >> 8))
		return message{packet.ICMPv6ParamProblem, param6Field, pointer}, ok
	}
	return message{}, false
}

func unreachable46(code uint8, mtu uint32, total uint16, limit uint32) (message, bool) {
	m := message{typ: packet.ICMPv6Unreachable}
	switch code {
	case unreachable4Net, unreachable4Host, unreachable4SourceRoute, unreachable4NetUnknown,
		unreachable4HostUnknown, unreachable4Isolated, unreachable4NetTOS, unreachable4HostTOS:
		m.code = unreachable6NoRoute
	case unreachable4Protocol:
		m = message{packet.ICMPv6ParamProblem, param6NextHeader, pointer6NextHeader}
	case unreachable4Port:
		m.code = unreachable6Port
	case packet.ICMPv4CodeFragNeeded:
		m = message{packet.ICMPv6PacketTooBig, 0, mtu46(mtu, total, limit)}
	case unreachable4NetProhibited, unreachable4HostProhibited, unreachable4Prohibited,
		unreachable4PrecedenceBelow:
		m.code = unreachable6Prohibited
	default: // 14, and what did not exist then
		return message{}, false
	}
	return m, true
}

// headerGap is how much longer an IPv6 header is than an IPv4 one, in bytes.
const headerGap = packet.IPv6Len - packet.IPv4MinLen

// minMTU6 is the least MTU of any IPv6 link, in bytes (RFC 8200 §5).
const minMTU6 = 1280

// mtu46 returns what a "packet too big" is to say (RFC 7915 §4.2). The MTU of
// the link that the error came by is left out: if it is the smaller one, weir
// itself says so to the next packet. For a router that says 0, it is the
// greatest plateau below the length that did not pass, of those in RFC 1191,
// table 7-1, that IPv6 has use for.
func mtu46(mtu uint32, total uint16, limit uint32) uint32 {
	if mtu == 0 {
		for _, plateau := range [...]uint16{32000, 17914, 8166, 4352, 2002, 1492} {
			if plateau < total {
				mtu = uint32(plateau)
				break
			}
		}
	}
	return max(minMTU6, min(mtu+headerGap, limit))
}

// pointer46 translates the place of the fault in an IPv4 header (RFC 7915 §4.2,
// figure 3).
func pointer46(at uint8) (uint32, bool) {
	switch {
	case at <= 1: // version, traffic class
		return uint32(at), true
	case at <= 3: // length
		return 4, true
	case at == 8: // hop limit
		return 7, true
	case at == pointer4Protocol:
		return pointer6NextHeader, true
	case at >= 12 && at <= 15: // source
		return 8, true
	case at >= 16 && at <= 19: // destination
		return 24, true
	}
	return 0, false
}

// icmp64 translates an ICMPv6 error (RFC 7915 §5.2); it reports false for one
// that IPv4 has no words for. mtu is what a "packet too big" says, limit the
// most to say; fragmented is whether the quoted packet has a fragment header.
func icmp64(p *packet.Parsed, m packet.ICMPv6, mtu uint32, fragmented bool, limit uint32) (message, bool) {
	switch p.ICMPType {
	case packet.ICMPv6Unreachable:
		return unreachable64(p.ICMPCode)
	case packet.ICMPv6PacketTooBig:
		return message{packet.ICMPv4Unreachable, packet.ICMPv4CodeFragNeeded, mtu64(mtu, fragmented, limit)}, true
	case packet.ICMPv6TimeExceeded:
		return message{typ: packet.ICMPv4TimeExceeded, code: p.ICMPCode}, true
	case packet.ICMPv6ParamProblem:
		switch p.ICMPCode {
		case param6Field:
			pointer, ok := pointer64(m.MTU())
			return message{packet.ICMPv4ParamProblem, param4Pointer, pointer << 24}, ok
		case param6NextHeader:
			return message{typ: packet.ICMPv4Unreachable, code: unreachable4Protocol}, true
		}
	}
	return message{}, false
}

func unreachable64(code uint8) (message, bool) {
	m := message{typ: packet.ICMPv4Unreachable}
	switch code {
	case unreachable6NoRoute, unreachable6Scope, unreachable6Address:
		m.code = unreachable4Host
	case unreachable6Prohibited:
		m.code = unreachable4HostProhibited
	case unreachable6Port:
		m.code = unreachable4Port
	default:
		return message{}, false
	}
	return m, true
}

// mtu64 returns what a "fragmentation needed" is to say (RFC 7915 §5.2). No
// IPv6 link has an MTU of less than 1280, so that a message that claims it (RFC
// 8201 §4 has it ignored) cannot lower the sender's below what that leaves.
func mtu64(mtu uint32, fragmented bool, limit uint32) uint32 {
	gap := uint32(headerGap)
	if fragmented {
		gap += packet.IPv6FragmentLen
	}
	return min(max(mtu, minMTU6)-gap, limit, maxPacket)
}

// pointer64 translates the place of the fault in an IPv6 header (RFC 7915 §5.2,
// figure 6).
func pointer64(at uint32) (uint32, bool) {
	switch {
	case at <= 1: // version, type of service
		return at, true
	case at == 4 || at == 5: // length
		return 2, true
	case at == pointer6NextHeader:
		return pointer4Protocol, true
	case at == 7: // time to live
		return 8, true
	case at >= 8 && at <= 23: // source
		return 12, true
	case at >= 24 && at <= 39: // destination
		return 16, true
	}
	return 0, false
}
