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
	)
	flags := []uint8{syn, synAck, ack, ack | psh, 0, finAck, fin, rst, rstAck, syn | fin, syn | rst}
	for s, want := range map[State][]State{
		none:        {opening, opening, established, established, established, finished, finished, closed, closed, finished, closed},
		udp:         {udp, udp, udp, udp, udp, udp, udp, udp, udp, udp, udp},
		opening:     {opening, opening, established, established, opening, finished, finished, closed, closed, finished, closed},
		established: {established, established, established, established, established, finished, finished, closed, closed, finished, closed},
		finished:    {opening, finished, finished, finished, finished, finished, finished, closed, closed, finished, closed},
		closed:      {opening, opening, established, established, established, finished, finished, closed, closed, finished, closed},
	} {
		for i, f := range flags {
			if got := NextState(s, f); got != want[i] {
				t.Errorf("%s, flags %#02x: %s, want %s", s, f, got, want[i])
			}
		}
	}
}

// Whatever is sent, the state is one that has a timeout.
func TestNextStateStaysInside(t *testing.T) {
	for s := range State(stateCount) {
		for f := range 256 {
			if next := NextState(s, uint8(f)); next == StateNone || next >= stateCount || (s == StateUDP) != (next == StateUDP) {
				t.Errorf("%s, flags %#02x: %s", s, f, next)
			}
		}
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
	base := Timeouts{UDP: time.Second, TCPSYN: 2 * time.Second, TCPEstablished: time.Hour, TCPFIN: time.Nanosecond, TCPClosed: time.Second/16 + 1}
	limit, err := base.ticks()
	want := [stateCount]int32{StateUDP: 16, StateSYN: 32, StateEstablished: 3600 * 16, StateFIN: 1, StateClosed: 2}
	if err != nil || limit != want {
		t.Errorf("%v, %v, want %v", limit, err, want)
	}
	for name, change := range map[string]func(*Timeouts){
		"udp":         func(o *Timeouts) { o.UDP = 0 },
		"syn":         func(o *Timeouts) { o.TCPSYN = -1 },
		"established": func(o *Timeouts) { o.TCPEstablished = math.MaxInt64 },
		"fin":         func(o *Timeouts) { o.TCPFIN = 0 },
		"closed":      func(o *Timeouts) { o.TCPClosed = 0 },
	} {
		o := DefaultTimeouts()
		change(&o)
		if _, err := New(8, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
