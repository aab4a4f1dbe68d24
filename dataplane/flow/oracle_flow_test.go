package flow

import (
	"time"
)

// modelTimeouts are short and all different, so that a few bytes of fuzz input
// reach every one of them. Two are longer than what a trusted flow must be quiet
// for.
var modelTimeouts = Timeouts{
	UDP:            80 * time.Second,
	TCPSYN:         time.Second,
	TCPEstablished: 100 * time.Second,
	TCPFIN:         70 * time.Second,
	TCPClosed:      time.Second / 2,
	TCPTimeWait:    4 * time.Second,
}

// party is a side of a connection.
type party int

// modelFlow is what the oracle knows of a flow: not a state, but what has
// happened.
type modelFlow struct {
	udp      bool
	opening  bool // nothing but SYNs of the client
	finished [backend + 1]bool
	reset    party // who reset it
	trusted  bool
	sequence uint32 // of the client's last segment
	mark     uint32 // set when it was last looked up
	number   uint32
	seen     uint64 // in ticks that do not wrap
	id       uint32 // in Backend and NAT
}

func (f *modelFlow) state() State {
	switch {
	case f.udp:
		return StateUDP
	case f.finished[client] && f.finished[backend]:
		return StateTimeWait
	case f.reset != nobody:
		return StateClosed
	case f.finished[client] || f.finished[backend]:
		return StateFIN
	case f.opening:
		return StateSYN
	}
	return StateEstablished
}

// note is what a packet of one side does to a flow, the first one included.
func (f *modelFlow) note(from party, flags uint8) {
	has := func(bits uint8) bool { return flags&bits != 0 }
	switch f.state() {
	case StateUDP, StateTimeWait:
		return
	case StateClosed:
		if from != f.reset && !has(rst) {
			return
		}
		f.reset, f.opening = nobody, has(syn) && !has(fin)
	}
	if from == client && has(ack) && !has(syn) {
		f.opening = false
	}
	switch {
	case has(rst):
		f.reset, f.opening, f.finished = from, false, [3]bool{}
	case has(fin):
		f.finished[from], f.opening = true, false
	}
}

// trust is what a packet of the client after the first does to the trust in its
// flow; it comes before note.
func (f *modelFlow) trust(s Segment) {
	if f.trusted || f.udp {
		f.trusted = true
		return
	}
	if s.Flags&ack != 0 && s.Flags&(syn|rst) == 0 {
		distance := int64(int32(s.Sequence - f.sequence))
		if f.state() == StateSYN {
			f.trusted = distance >= 1 && distance <= 65536
		} else {
			f.trusted = max(distance, -distance) <= 1<<20
		}
	}
	if !f.trusted {
		f.sequence = s.Sequence
	}
}

func (f *modelFlow) over(now uint64) bool {
	const tick = time.Second / TicksPerSecond
	limit := map[State]time.Duration{
		StateUDP: modelTimeouts.UDP, StateSYN: modelTimeouts.TCPSYN, StateEstablished: modelTimeouts.TCPEstablished,
		StateFIN: modelTimeouts.TCPFIN, StateClosed: modelTimeouts.TCPClosed, StateTimeWait: modelTimeouts.TCPTimeWait,
	}[f.state()]
	return time.Duration(now-f.seen)*tick > limit
}

// rank says how soon a flow has to make room: the lowest goes first.
func (f *modelFlow) rank(now uint64) int {
	switch s := f.state(); {
	case f.over(now), s == StateClosed, s == StateTimeWait:
		return int(EvictedEnded)
	case !f.trusted:
		return int(EvictedUntrusted)
	case now-f.seen > 60*TicksPerSecond:
		return int(EvictedOldest)
	}
	return 100
}

// ofClient is what a packet of the client says of a connection that was in state s
// before it.
func (f *modelFlow) ofClient(s State, flags uint8) Event {
	switch now := f.state(); {
	case s != StateSYN:
	case now == StateEstablished, now == StateFIN && flags&ack != 0:
		return Established
	case flags&(syn|ack|fin|rst) == syn:
		return Retried
	}
	return 0
}
