// Package fragment lets the fragments of a datagram follow its first one, and
// makes fragments of packets that are too long.
//
// The problem it solves: only the first fragment of a datagram says which flow
// it is of, yet all must reach that flow's backend, in whatever order they
// come. So a worker has to remember datagrams, and that is what attackers of
// reassembly have always lived on: fragments that overlap, so that two readers
// see two packets; first ones too short to say what they are; and lone ones by
// the million that wait for a first one that never comes. A [Table] is bounded
// in datagrams, in bytes and in time, allocates nothing once made, and prefers
// datagrams that have shown their first fragment to those that have not. It
// does not reassemble: fragments go on as they came, and the one copy made is
// of those that came too early.
//
// What the best do differs in what they are afraid of. Linux and VPP's full
// reassembly check for overlaps but need all of a datagram; VPP's shallow
// virtual reassembly and Cilium's fragment map remember the ports only, so that
// overlaps pass, and Cilium drops what comes before the first. Here a bitmap
// beside the ports does both.
package fragment

import (
	"weir/dataplane/packet"
	"weir/dataplane/stats"
)

// Key names a datagram whose fragments belong together. For IPv4 these are the
// addresses, protocol and identification (RFC 791 section 3.2). For IPv6 the
// protocol has no part in it and Proto is 0 (RFC 8200 section 4.5), as the
// fragment headers of one datagram may name different ones.
type Key struct {
	Src, Dst [16]byte
	ID       uint32
	Proto    uint8
}

// Span is the part of the datagram that a fragment carries, in bytes.
type Span struct {
	Offset, Length int
	More           bool // it is not the last
}

// Ports are what the first fragment says about the flow of all. A protocol
// without ports leaves them 0.
//
// Proto is the transport protocol. IPv4 has it in every fragment; but a later
// fragment of IPv6 may name an extension header that the first one has before
// its transport header (RFC 8200 section 4.5).
type Ports struct {
	Src, Dst uint16
	Proto    uint8
}

// Action says what to do with a fragment.
type Action uint8

// What Track may decide.
const (
	Drop    Action = iota // for Result.Reason
	Forward               // as a packet with Result.Ports
	Hold                  // its first fragment has not come: call Table.Hold
)

// Result is what became of a fragment.
type Result struct {
	Action Action
	Reason stats.Reason // why it is dropped
	Ports  Ports        // of the first fragment, to forward by
}

// KeyOf returns which datagram the fragment in frame is of, and which part it
// is. p is what Decode made of frame: a fragment without a problem.
func KeyOf(frame []byte, p *packet.Parsed) (Key, Span) {
	f := p.FragmentFields(frame)
	k := Key{Src: p.Src, Dst: p.Dst, ID: f.ID}
	if p.Kind == packet.KindIPv4 {
		k.Proto = p.Proto
	}
	return k, Span{Offset: f.Offset, Length: f.Length, More: f.More}
}

// Tiny reports whether the fragment in frame is cut so small that it hides
// what the flow is, or could change it afterwards:
//
//   - a first one that ends before its transport header does, TCP's options
//     included, or, in IPv6, before its extension headers do (RFC 1858 section
//     3, RFC 7112 section 5);
//   - a later one of TCP that starts inside the fixed header of 20 bytes (RFC
//     1858 section 4, RFC 3128 section 2). Only a link of less than 100 bytes
//     would need such a one.
//
// p is what Decode made of frame. Decode has a problem with most of the former,
// so this is to be asked before the problem is acted upon.
func Tiny(p *packet.Parsed, frame []byte) bool {
	switch {
	case !p.Fragment:
		return false
	case p.FragmentFirst && p.Problem == packet.ProblemTruncated:
		return true
	case p.Proto != packet.ProtoTCP:
		return false
	case p.FragmentFirst:
		// A malformed one has its fixed header, and says in it how long it is.
		transport := packet.TCP(frame[p.L4:p.End])
		return p.Problem == packet.ProblemMalformed && transport.HeaderLen() > len(transport)
	}
	return p.Problem == packet.ProblemNone && p.FragmentFields(frame).Offset < packet.TCPMinLen
}
