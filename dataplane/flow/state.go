package flow

import (
	"fmt"
	"math"
	"time"

	"weir/dataplane/packet"
)

// State is how far a flow has come; it decides how long it may be idle. All but
// StateTimeWait can be told from one direction alone: with DSR, the packets of
// the backend never come by here.
type State uint8

const (
	// StateNone is the state of no flow; no Entry is ever in it.
	StateNone State = iota
	// StateUDP is any flow that is not TCP.
	StateUDP
	// StateSYN is a TCP connection of which only the opening was seen.
	StateSYN
	// StateEstablished is a TCP connection that somebody answers: the client
	// has sent more than the opening. A connection first seen in the middle,
	// after a restart say, is in this state.
	StateEstablished
	// StateFIN is a TCP connection one side of which has finished; where only
	// the client's packets are seen, at least that one. The other may go on for
	// long; the acknowledgements keep the flow.
	StateFIN
	// StateClosed is a TCP connection that was reset.
	StateClosed
	// StateTimeWait is a TCP connection both sides of which have finished. Only
	// flows that Answered is called for get here.
	StateTimeWait

	stateCount = iota
)

// String returns the state's name as `weir show flows` prints it.
func (s State) String() string {
	switch s {
	case StateNone:
		return "none"
	case StateUDP:
		return "udp"
	case StateSYN:
		return "syn"
	case StateEstablished:
		return "established"
	case StateFIN:
		return "fin"
	case StateClosed:
		return "closed"
	case StateTimeWait:
		return "time-wait"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// ended tells whether nothing but stragglers is to come, as far as anybody can
// tell who looks at neither sequence numbers nor the clock.
func (s State) ended() bool { return s == StateClosed || s == StateTimeWait }

// A place's status is three bits of State, and
//
//   - trusted: the flow has shown a second packet in sequence (see trust.go);
//   - byBackend: the backend is the side that finished (in StateFIN) or reset
//     the connection (in StateClosed); else it was the client.
const (
	stateMask = 1<<3 - 1
	trusted   = 1 << 3
	byBackend = 1 << 4
)

// The sides a packet can come from, as step wants them.
const (
	fromClient  = 0
	fromBackend = byBackend
)

// NextState returns the state after a packet of the client with these TCP
// control bits (packet.TCPFin and so on), for a flow of which only the client's
// packets are seen. For the first packet of a TCP connection s is StateNone.
func NextState(s State, tcpFlags uint8) State {
	return State(step(uint32(s), tcpFlags, fromClient) & stateMask)
}

// step returns the status of a place after a packet of one side; of it, it
// changes State and byBackend.
//
// The states are those that RFC 7857 section 2 asks of a NAT (the machine of
// RFC 6146 section 3.5.2.2); for one side alone they are those of IPVS's
// input-only table (ip_vs_proto_tcp.c). Three things differ:
//
//   - A connection that was reset opens again only by a segment of the side
//     that reset it. Sequence numbers are not checked here, so anybody can
//     forge a reset that its receiver ignores (RFC 5961 section 3), and a side
//     that goes on talking did not send it. What the other side still had under
//     way proves nothing, and RFC 6146 would keep the port for hours for it.
//   - An answer does not establish a connection, the client's acknowledgement
//     does: anybody's SYN gets an answer.
//   - Nothing leaves StateTimeWait but a new connection, and no reset shortens
//     it (RFC 1337 section 3).
func step(status uint32, tcpFlags uint8, side uint32) uint32 {
	s, same := State(status&stateMask), status&byBackend == side
	next := uint32(StateEstablished)
	switch {
	case s == StateUDP || s == StateTimeWait:
		return status
	case tcpFlags&packet.TCPRst != 0:
		next = uint32(StateClosed) | side
	case s == StateClosed && !same:
		return status
	case tcpFlags&packet.TCPFin != 0:
		next = uint32(StateFIN) | side
		if s == StateFIN && !same {
			next = uint32(StateTimeWait)
		}
	case tcpFlags&packet.TCPSyn != 0:
		// A SYN on a live connection changes nothing: the other side answers it
		// with a challenge (RFC 9293 section 3.10.7.4).
		if s == StateEstablished || s == StateFIN {
			return status
		}
		next = uint32(StateSYN)
	case s == StateFIN:
		return status
	case s == StateSYN && (tcpFlags&packet.TCPAck == 0 || side == fromBackend):
		return status
	}
	return status&^(stateMask|byBackend) | next
}

// settled tells whether a packet, of either side, changes nothing in the status: a
// trusted flow, not TCP or established, and no control bit that matters. Nearly
// all packets are so, and are spared the rest.
func settled(status uint32, tcpFlags uint8) bool {
	const matters = packet.TCPSyn | packet.TCPFin | packet.TCPRst
	switch status & (stateMask | trusted) {
	case uint32(StateUDP) | trusted:
		return true
	case uint32(StateEstablished) | trusted:
		return tcpFlags&matters == 0
	}
	return false
}

// firstState returns the state of a flow after its first packet.
func firstState(proto, tcpFlags uint8) State {
	if proto != packet.ProtoTCP {
		return StateUDP
	}
	return NextState(StateNone, tcpFlags)
}

// reopens tells whether a packet of the client is the first of a new connection
// on the tuple of one that has ended, at least for the client. Such a
// connection owes nothing to the backend of the old one, which may be draining.
func reopens(status uint32, tcpFlags uint8) bool {
	const opening = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin
	if tcpFlags&opening != packet.TCPSyn {
		return false
	}
	s := State(status & stateMask)
	return s.ended() || s == StateFIN && status&byBackend == 0
}

// Timeouts says for each kind of flow how long it may be idle before it counts
// as over. They are kept in ticks, rounded up.
type Timeouts struct {
	UDP            time.Duration // and everything else that is not TCP
	TCPSYN         time.Duration // StateSYN
	TCPEstablished time.Duration // StateEstablished
	TCPFIN         time.Duration // StateFIN
	TCPClosed      time.Duration // StateClosed
	TCPTimeWait    time.Duration // StateTimeWait
}

// DefaultTimeouts returns the timeouts to use when nothing else is wanted. Long
// ones cost little in a table of fixed size: what is too much makes room.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		// RFC 4787 section 4.3 REQ-5: at least 2 minutes, 5 recommended.
		// IPVS's too.
		UDP: 5 * time.Minute,
		// IPVS's SYN_RECV. RFC 5382 REQ-5 wants 4 minutes for a NAT, but a
		// flood of SYNs is what fills a load balancer's table.
		TCPSYN: time.Minute,
		// RFC 5382 section 5 REQ-5: two hours until the first keep-alive (RFC
		// 1122 section 4.2.3.6) and four minutes for its answer. IPVS's 15
		// minutes break idle connections that use keep-alives.
		TCPEstablished: 2*time.Hour + 4*time.Minute,
		// RFC 5382 section 5 REQ-5, transitory: 4 minutes. IPVS has 2.
		TCPFIN: 4 * time.Minute,
		// IPVS's CLOSE. RFC 7857 section 2.2 has 4 minutes, for a reset that is
		// lost behind the NAT: the side it was lost to talks on, or tries later
		// and gets none.
		TCPClosed: 10 * time.Second,
		// Linux's TCP_TIMEWAIT_LEN (include/net/tcp.h). RFC 9293 section
		// 3.6.1 has twice the maximum segment lifetime, 4 minutes, and so do
		// RFC 5382 REQ-5 and RFC 7857 section 2.1 for all that is closing; but a
		// NAT need not keep a port for longer than the ends themselves do.
		TCPTimeWait: time.Minute,
	}
}

// limits is the longest idle time in each state, in ticks. It has room for all
// that a status's state bits can say, so that no access needs a check.
type limits [stateMask + 1]int32

// ticks returns the timeouts in ticks. Ticks are compared by signed difference,
// so a timeout must be below half of what they count up to.
func (t *Timeouts) ticks() (limit limits, err error) {
	const tick = time.Second / TicksPerSecond
	for _, f := range []struct {
		state State
		d     time.Duration
	}{
		{StateUDP, t.UDP},
		{StateSYN, t.TCPSYN},
		{StateEstablished, t.TCPEstablished},
		{StateFIN, t.TCPFIN},
		{StateClosed, t.TCPClosed},
		{StateTimeWait, t.TCPTimeWait},
	} {
		if f.d <= 0 || f.d > math.MaxInt32/2*tick {
			return limit, fmt.Errorf("timeout of %s flows: %v is not above 0 and below 2 years", f.state, f.d)
		}
		limit[f.state] = int32((f.d + tick - 1) / tick)
	}
	return limit, nil
}
