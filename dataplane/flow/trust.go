package flow

import "weir/dataplane/packet"

// Segment is what the table wants to know of a packet beyond its tuple: the TCP
// control bits (packet.TCPFin and so on) and the sequence number. It is zero
// for what is not TCP.
type Segment struct {
	Flags    uint8
	Sequence uint32
}

const (
	// openingReach is how far behind a SYN, in bytes, the client's next segment
	// may begin: data in the SYN itself (RFC 7413), and the first segments lost.
	openingReach = 1<<16 - 1
	// middleReach is how far apart, in bytes, two segments of a connection may
	// be whose opening was not seen: what is under way in a fast transfer.
	middleReach = 1 << 20
)

// A flow is trusted once its client has shown a second packet in sequence. A
// flood of single packets with made-up sources, SYN or UDP, so gets entries
// that are the first to go, and cannot push out a flow that is in use, whether
// backends answer it or not. It is no proof of address: whoever sends two packets
// for each flow he makes up, the second one in sequence, is trusted, and only
// rate limits help against him.

// inSequence tells whether seg follows what was seen of a TCP flow in state s:
// an acknowledgement, close behind the sequence number that was seen last.
func inSequence(s State, last uint32, seg Segment) bool {
	const want = packet.TCPAck
	if seg.Flags&(packet.TCPSyn|packet.TCPRst|packet.TCPAck) != want {
		return false
	}
	if s == StateSYN {
		return seg.Sequence-(last+1) <= openingReach
	}
	return seg.Sequence-last+middleReach <= 2*middleReach
}

// vouch notes a packet of the client for an untrusted flow whose state before
// it was s, and returns trusted if it makes the flow so, else 0. A segment out
// of sequence is what the next one is measured by: a SYN sent anew, or a
// transfer of which the first packet seen was an old one sent again.
func (e *Entry) vouch(s State, seg Segment) uint32 {
	if s == StateUDP || inSequence(s, e.mark, seg) {
		e.mark = 0
		return trusted
	}
	e.mark = seg.Sequence
	return 0
}
