package flow

import (
	"fmt"
	"math"
	"time"

	"weir/dataplane/packet"
)

// State is how far a flow has come; it decides how long it may be idle. There
// are only states that can be told from one direction: with DSR, the packets
// of the backend never come by here.
type State uint8

const (
	// StateNone is the state of no flow; no Entry is ever in it.
	StateNone State = iota
	// StateUDP is any flow that is not TCP.
	StateUDP
	// StateSYN is a TCP connection of which only the opening was seen.
	StateSYN
	// StateEstablished is a TCP connection that somebody answers: either side
	// has sent more than the opening. A connection first seen in the middle,
	// after a restart say, is in this state.
	StateEstablished
	// StateFIN is a TCP connection at least one side of which has finished.
	// The other may go on for long; the acknowledgements keep the flow.
	StateFIN
	// StateClosed is a TCP connection that was reset.
	StateClosed

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
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// NextState returns the state after a packet with these TCP control bits
// (packet.TCPFin and so on), from either direction. For the first packet of a TCP connection s is StateNone.
//
// The states are IPVS's input-only table (ip_vs_proto_tcp.c) without those that
// only differ in their name, but for one: after a reset, a segment that is none
// opens the connection again, as in RFC 6146 section 3.5.2.2. Sequence numbers
// are not checked here, so anybody can forge a reset that the backend ignores
// (RFC 5961 section 3); what goes on talking was not reset.
func NextState(s State, tcpFlags uint8) State {
	switch {
	case s == StateUDP:
		return StateUDP
	case tcpFlags&packet.TCPRst != 0:
		return StateClosed
	case tcpFlags&packet.TCPFin != 0:
		return StateFIN
	case tcpFlags&packet.TCPSyn != 0:
		// A repeated SYN on a live connection changes nothing: the backend
		// answers it with a challenge (RFC 9293 section 3.10.7.4).
		if s == StateEstablished || s == StateFIN && tcpFlags&packet.TCPAck != 0 {
			return s
		}
		return StateSYN
	case s == StateFIN:
		return StateFIN
	case s == StateSYN && tcpFlags&packet.TCPAck == 0:
		return StateSYN
	}
	return StateEstablished
}

// firstState returns the state of a flow after its first packet.
func firstState(proto, tcpFlags uint8) State {
	if proto != packet.ProtoTCP {
		return StateUDP
	}
	return NextState(StateNone, tcpFlags)
}

// reopenedBy tells whether a packet is the first of a new connection on the
// tuple of one that has ended. Such a connection owes nothing to the backend of
// the old one, which may be draining.
func (s State) reopenedBy(tcpFlags uint8) bool {
	const opening = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin
	return (s == StateFIN || s == StateClosed) && tcpFlags&opening == packet.TCPSyn
}

// Timeouts says for each kind of flow how long it may be idle before it counts
// as over. They are kept in ticks, rounded up.
type Timeouts struct {
	UDP            time.Duration // and everything else that is not TCP
	TCPSYN         time.Duration // StateSYN
	TCPEstablished time.Duration // StateEstablished
	TCPFIN         time.Duration // StateFIN
	TCPClosed      time.Duration // StateClosed
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
		// IPVS's CLOSE.
		TCPClosed: 10 * time.Second,
	}
}

// ticks returns the longest idle time in each state. Ticks are compared by
// signed difference, so a timeout must be below half of what they count up to.
func (t *Timeouts) ticks() (limit [stateCount]int32, err error) {
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
	} {
		if f.d <= 0 || f.d > math.MaxInt32/2*tick {
			return limit, fmt.Errorf("timeout of %s flows: %v is not above 0 and below 2 years", f.state, f.d)
		}
		limit[f.state] = int32((f.d + tick - 1) / tick)
	}
	return limit, nil
}
