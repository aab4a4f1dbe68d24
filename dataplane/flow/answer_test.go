package flow

import (
	"testing"

	"weir/dataplane/packet"
)

func TestNumber(t *testing.T) {
	table := newTable(t, 64)
	seen := map[uint32]bool{}
	for n := range 40 {
		k := tupleN(n, packet.ProtoUDP)
		hash := table.Hash(&k)
		e, _, _ := table.Insert(hash, &k, Segment{}, 0)
		number := table.Number(e)
		if uint64(number/setLines) != hash&table.mask || table.At(number) != e || table.Number(table.Peek(hash, &k, 0)) != number {
			t.Errorf("flow %d: number %d", n, number)
		}
		seen[number] = true
	}
	for number := range uint32(100) { // with headers, and beyond the table
		if (table.At(number) != nil) != seen[number] {
			t.Errorf("number %d: %v", number, table.At(number))
		}
	}
}

// A number of a flow that has gone is nobody's until another flow gets it, and
// then that one's: the caller's index has to follow.
func TestDeleteAt(t *testing.T) {
	table := newTable(t, 8)
	k := tupleN(1, packet.ProtoUDP)
	hash := table.Hash(&k)
	e, _, _ := table.Insert(hash, &k, Segment{}, 0)
	e.Backend, e.NAT = 7, NATState{Slot: 1, Port: 2, Station: 3, Flags: 4}
	want, number := *e, table.Number(e)
	gone, ok := table.DeleteAt(number)
	if !ok || gone != want || table.Len() != 0 || table.Lookup(hash, &k, Segment{}, 0) != nil {
		t.Errorf("deleted %v %+v, %d flows left", ok, gone, table.Len())
	}
	if _, ok := table.DeleteAt(number); ok {
		t.Error("deleted twice")
	}
	if _, ok := table.DeleteAt(8); ok {
		t.Error("deleted what is outside the table")
	}
	e, _, _ = table.Insert(hash, &k, Segment{}, 0)
	if e.NAT != (NATState{}) {
		t.Errorf("a new flow has %+v", e.NAT)
	}
}

// What answers do to trust, to how long a flow lives, and to what may be taken
// over from it.
func TestAnswered(t *testing.T) {
	d := DefaultTimeouts()
	for _, test := range []struct {
		name             string
		proto            uint8
		first            Segment
		rest             []Segment // of the client, or with answer
		state            State
		timeout          Tick
		ended, untrusted bool
	}{
		{"UDP", packet.ProtoUDP, Segment{}, nil, StateUDP, TickAt(d.UDP), false, true},
		{"UDP, answered", packet.ProtoUDP, Segment{}, []Segment{answered(0), answered(0)}, StateUDP, TickAt(d.UDP), false, true},
		{"UDP, the client goes on", packet.ProtoUDP, Segment{}, []Segment{answered(0), {}}, StateUDP, TickAt(d.UDP), false, false},
		{"SYN, answered", packet.ProtoTCP, Segment{syn, 7}, []Segment{answered(synAck), answered(synAck)}, StateSYN, TickAt(d.TCPSYN), false, true},
		{"SYN, refused", packet.ProtoTCP, Segment{syn, 7}, []Segment{answered(rstAck)}, StateClosed, TickAt(d.TCPClosed), true, true},
		{"open", packet.ProtoTCP, Segment{syn, 7}, []Segment{answered(synAck), {ack, 8}}, StateEstablished, TickAt(d.TCPEstablished), false, false},
		{"half closed", packet.ProtoTCP, Segment{syn, 7}, []Segment{answered(synAck), {ack, 8}, answered(finAck), {ack, 8}}, StateFIN, TickAt(d.TCPFIN), false, false},
		{"closed", packet.ProtoTCP, Segment{syn, 7}, []Segment{answered(synAck), {ack, 8}, answered(finAck), {finAck, 8}, answered(ack)}, StateTimeWait, TickAt(d.TCPTimeWait), true, false},
	} {
		for _, start := range []Tick{0, ^Tick(0) - 3} {
			table := newTable(t, 8)
			k := tupleN(1, test.proto)
			hash := table.Hash(&k)
			e, _, _ := table.Insert(hash, &k, test.first, start)
			number := table.Number(e)
			now := start
			for _, s := range test.rest {
				now++
				if s.Sequence == fromTheBackend {
					if !table.Answered(number, s, now) {
						t.Fatalf("%s: lost", test.name)
					}
				} else if table.Lookup(hash, &k, s, now) == nil {
					t.Fatalf("%s: lost", test.name)
				}
			}
			ended, untrusted := table.Reusable(number, now+1)
			if s := table.StateOf(number); s != test.state || ended != test.ended || untrusted != test.untrusted || table.Idle(number, now+1) != 1 {
				t.Errorf("%s: %s, reusable %v %v", test.name, s, ended, untrusted)
			}
			if over := now + test.timeout + 1; table.Answered(number, seg(ack), over) || table.Peek(hash, &k, over) != nil || table.At(number) == nil {
				t.Errorf("%s: still there after %d ticks", test.name, test.timeout)
			}
			if ended, _ := table.Reusable(number, now+test.timeout+1); !ended {
				t.Errorf("%s: not reusable after %d ticks", test.name, test.timeout)
			}
			if !table.Answered(number, seg(ack), now+test.timeout) || table.Idle(number, now+test.timeout) != 0 {
				t.Errorf("%s: gone before %d ticks", test.name, test.timeout)
			}
		}
	}
}

const fromTheBackend = 0xbac4e2d

func answered(flags uint8) Segment { return Segment{flags, fromTheBackend} }

// A new connection replaces one that has ended, for the client at least.
func TestReopenedBothSides(t *testing.T) {
	for _, test := range []struct {
		name  string
		ends  []Segment
		found bool
	}{
		{"both finished", []Segment{answered(finAck), {finAck, 8}}, false},
		{"client finished", []Segment{{finAck, 8}}, false},
		{"backend finished", []Segment{answered(finAck)}, true},
		{"backend reset it", []Segment{answered(rst)}, false},
	} {
		table := newTable(t, 8)
		k := tupleN(1, packet.ProtoTCP)
		hash := table.Hash(&k)
		e, _, _ := table.Insert(hash, &k, Segment{syn, 7}, 0)
		table.Lookup(hash, &k, Segment{ack, 8}, 0)
		for _, s := range test.ends {
			if s.Sequence == fromTheBackend {
				table.Answered(table.Number(e), s, 0)
			} else {
				table.Lookup(hash, &k, s, 0)
			}
		}
		if found := table.Lookup(hash, &k, Segment{syn, 9}, 0) != nil; found != test.found {
			t.Errorf("%s: found %v, want %v", test.name, found, test.found)
		}
	}
}
