package flow

import "weir/dataplane/packet"

// Event is something that a packet says of a TCP connection that is in the
// table. Each is told once for each packet that says so.
type Event uint8

const (
	// Established: the client went on from its SYN, so the backend has answered.
	Established Event = iota + 1
	// Retried: the client has sent its SYN again.
	Retried
	// Reset: the backend has reset a connection that had not ended.
	Reset
)

// Watch has the table call noted when there is an Event. The entry is as in
// Lookup, good during that call only, and noted must not call the table. Packets
// that change no state, nearly all, cost nothing for it.
func (t *Table) Watch(noted func(*Entry, Event)) { t.noted = noted }

// tellOpening tells what the client's next packet says of a connection of which
// only the opening was seen.
func (t *Table) tellOpening(e *Entry, next uint32, tcpFlags uint8) {
	const opening = packet.TCPSyn | packet.TCPAck | packet.TCPRst | packet.TCPFin
	switch s := State(next & stateMask); {
	case t.noted == nil:
	case s == StateEstablished, s == StateFIN && tcpFlags&packet.TCPAck != 0:
		t.noted(e, Established)
	case tcpFlags&opening == packet.TCPSyn:
		t.noted(e, Retried)
	}
}

// tellReset tells that the backend has ended a connection, if it has.
func (t *Table) tellReset(number, status, next uint32) {
	if t.noted != nil && State(next&stateMask) == StateClosed && !State(status&stateMask).ended() {
		t.noted(t.Found(number), Reset)
	}
}
