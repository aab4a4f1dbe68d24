package flow

import (
	"math"
	"strings"
	"testing"
	"time"

	"weir/dataplane/packet"
)

const (
	fin    = packet.TCPFin
	syn    = packet.TCPSyn
	rst    = packet.TCPRst
	psh    = packet.TCPPsh
	ack    = packet.TCPAck
	synAck = syn | ack
	finAck = fin | ack
	rstAck = rst | ack
)

func TestNextState(t *testing.T) {
	const (
		none, udp   = StateNone, StateUDP
		opening     = StateSYN
		established = StateEstablished
		finished    = StateFIN
		closed      = StateClosed
		waiting     = StateTimeWait
	)
	flags := []uint8{syn, synAck, ack, ack | psh, 0, finAck, fin, rst, rstAck, syn | fin, syn | rst}
	for s, want := range map[State][]State{
		none:        {opening, opening, established, established, established, finished, finished, closed, closed, finished, closed},
		udp:         {udp, udp, udp, udp, udp, udp, udp, udp, udp, udp, udp},
		opening:     {opening, opening, established, established, opening, finished, finished, closed, closed, finished, closed},
		established: {established, established, established, established, established, finished, finished, closed, closed, finished, closed},
		finished:    {finished, finished, finished, finished, finished, finished, finished, closed, closed, finished, closed},
		waiting:     {waiting, waiting, waiting, waiting, waiting, waiting, waiting, waiting, waiting, waiting, waiting},
		closed:      {opening, opening, established, established, established, finished, finished, closed, closed, finished, closed},
	} {
		for i, f := range flags {
			if got := NextState(s, f); got != want[i] {
				t.Errorf("%s, flags %#02x: %s, want %s", s, f, got, want[i])
			}
		}
	}
}

// Whatever is sent by whom, the state is one that has a timeout, and the rest of
// the status stays as it is.
func TestStepStaysInside(t *testing.T) {
	const rest = 0xe0 | trusted
	for s := range uint32(stateCount) {
		for f := range 256 {
			for _, by := range []uint32{0, byBackend} {
				for _, side := range []uint32{fromClient, fromBackend} {
					status := step(rest|s|by, uint8(f), side)
					next := State(status & stateMask)
					if next == StateNone || next >= stateCount || (State(s) == StateUDP) != (next == StateUDP) {
						t.Errorf("%s, flags %#02x: %s", State(s), f, next)
					}
					if status&^(stateMask|byBackend) != rest {
						t.Errorf("%s, flags %#02x: status %#x", State(s), f, status)
					}
				}
			}
		}
	}
}

// What settled says needs no step must not need one.
func TestSettled(t *testing.T) {
	n := 0
	for status := range uint32(1 << 8) {
		for f := range 256 {
			if status&byBackend != 0 || !settled(status, uint8(f)) {
				continue // nobody has ended what is settled
			}
			n++
			if step(status, uint8(f), fromClient) != status || step(status, uint8(f), fromBackend) != status {
				t.Errorf("status %#x, flags %#02x", status, f)
			}
			if status&trusted == 0 || reopens(status, uint8(f)) {
				t.Errorf("status %#x, flags %#02x: untrusted, or a new connection", status, f)
			}
		}
	}
	if n == 0 {
		t.Error("nothing is settled")
	}
}

func TestConnections(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []uint8
		want  State
	}{
		{"opened, client's side only", []uint8{syn, ack}, StateEstablished},
		{"opened, both sides", []uint8{syn, synAck, ack}, StateEstablished},
		{"flood", []uint8{syn, syn, syn}, StateSYN},
		{"refused", []uint8{syn, rstAck}, StateClosed},
		{"half closed, download goes on", []uint8{syn, ack, finAck, ack, ack}, StateFIN},
		{"reset after closing", []uint8{syn, ack, finAck, rst}, StateClosed},
		{"forged reset", []uint8{syn, ack, rst, ack}, StateEstablished},
		{"forged SYN", []uint8{syn, ack, syn}, StateEstablished},
		{"in the middle", []uint8{ack | psh}, StateEstablished},
		{"fast open", []uint8{syn | psh, ack | psh}, StateEstablished},
	} {
		s := StateNone
		for _, f := range test.flags {
			s = NextState(s, f)
		}
		if s != test.want {
			t.Errorf("%s: %s, want %s", test.name, s, test.want)
		}
	}
}

// Connections of which both sides are seen. What the backend sends is
// marked with <.
func TestBothSides(t *testing.T) {
	flags := map[string]uint8{"syn": syn, "ack": ack, "synAck": synAck, "finAck": finAck, "rst": rst, "rstAck": rstAck}
	for _, test := range []struct {
		name    string
		packets string
		want    State
	}{
		{"answered, not acknowledged", "syn <synAck", StateSYN},
		{"data before the acknowledgement", "syn <synAck <ack", StateSYN},
		{"challenge to a SYN", "syn <ack", StateSYN},
		{"opened", "syn <synAck ack <ack", StateEstablished},
		{"refused", "syn <rstAck", StateClosed},
		{"client finishes", "syn <synAck ack finAck <ack <ack ack", StateFIN},
		{"backend finishes", "syn <synAck ack <finAck ack ack", StateFIN},
		{"one side finishes twice", "syn ack <finAck <finAck", StateFIN},
		{"client, then backend", "syn ack finAck <finAck ack", StateTimeWait},
		{"backend, then client", "syn ack <finAck finAck <ack", StateTimeWait},
		{"stragglers", "syn ack <finAck finAck finAck <finAck <synAck ack", StateTimeWait},
		{"reset after both have finished", "syn ack <finAck finAck rst <rst", StateTimeWait},
		{"reset after one has finished", "syn ack <finAck rst", StateClosed},
		{"client resets a download", "syn ack rst <ack <ack", StateClosed},
		{"backend resets an upload", "syn ack <rst ack ack", StateClosed},
		{"late FIN after a reset", "syn ack rst <finAck", StateClosed},
		{"reset forged in the client's name", "syn ack rst ack <ack", StateEstablished},
		{"reset forged in the backend's name", "syn ack <rst <ack ack", StateEstablished},
		{"SYN forged after the backend has finished", "syn ack <finAck syn", StateFIN},
		{"both open", "syn <syn ack", StateEstablished},
	} {
		status := uint32(0)
		for p := range strings.FieldsSeq(test.packets) {
			side := uint32(fromClient)
			if p[0] == '<' {
				p, side = p[1:], fromBackend
			}
			f, ok := flags[p]
			if !ok {
				t.Fatalf("%s: no packet is called %s", test.name, p)
			}
			status = step(status, f, side)
		}
		if got := State(status & stateMask); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestStateString(t *testing.T) {
	seen := map[string]bool{}
	for s := range State(stateCount + 1) {
		name := s.String()
		if seen[name] || strings.HasPrefix(name, "state ") != (s == stateCount) {
			t.Errorf("state %d: %q", s, name)
		}
		seen[name] = true
	}
}

func TestTimeoutTicks(t *testing.T) {
	base := Timeouts{UDP: time.Second, TCPSYN: 2 * time.Second, TCPEstablished: time.Hour, TCPFIN: time.Nanosecond, TCPClosed: time.Second/16 + 1, TCPTimeWait: time.Minute}
	limit, err := base.ticks()
	want := limits{StateUDP: 16, StateSYN: 32, StateEstablished: 3600 * 16, StateFIN: 1, StateClosed: 2, StateTimeWait: 960}
	if err != nil || limit != want {
		t.Errorf("%v, %v, want %v", limit, err, want)
	}
	for name, change := range map[string]func(*Timeouts){
		"udp":         func(o *Timeouts) { o.UDP = 0 },
		"syn":         func(o *Timeouts) { o.TCPSYN = -1 },
		"established": func(o *Timeouts) { o.TCPEstablished = math.MaxInt64 },
		"fin":         func(o *Timeouts) { o.TCPFIN = 0 },
		"closed":      func(o *Timeouts) { o.TCPClosed = 0 },
		"time-wait":   func(o *Timeouts) { o.TCPTimeWait = 0 },
	} {
		o := DefaultTimeouts()
		change(&o)
		if _, err := New(8, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
