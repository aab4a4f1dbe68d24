package bgp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	gobgplog "github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	"golang.org/x/sys/unix"
)

func TestNotificationWords(t *testing.T) {
	for _, tc := range []struct {
		code, subcode uint8
		want          string
	}{
		{1, 2, "message header error: bad message length"},
		{2, 2, "OPEN message error: bad peer AS"},
		{2, 6, "OPEN message error: unacceptable hold time"},
		{3, 11, "UPDATE message error: malformed AS_PATH"},
		{4, 0, "hold timer expired"},
		{5, 1, "finite state machine error"},
		{6, 0, "cease"},
		{6, 2, "cease: administrative shutdown"},
		{6, 10, "cease: BFD down"},
		{6, 11, "cease: subcode 11"},
		{7, 255, "notification 7/255"},
	} {
		if got := notification(tc.code, tc.subcode); got != tc.want {
			t.Errorf("%d/%d is %q, want %q", tc.code, tc.subcode, got, tc.want)
		}
	}
}

func TestConnectErrorWords(t *testing.T) {
	p := &preparedPeer{Peer: Peer{Address: addr("10.0.0.1"), Port: 179, Source: addr("10.0.0.2"), Password: "x"}}
	wrap := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{wrap(unix.ECONNREFUSED), "TCP connect to 10.0.0.1 port 179: refused"},
		{wrap(unix.ETIMEDOUT), "no answer to TCP connect to 10.0.0.1 port 179; wrong address, port, firewall, or MD5 password mismatch"},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "no answer to TCP connect"},
		{context.DeadlineExceeded, "no answer to TCP connect"},
		{wrap(unix.EHOSTUNREACH), "ARP or NDP"},
		{wrap(unix.ENETUNREACH), "this node has no route"},
		{wrap(unix.EADDRNOTAVAIL), "source address 10.0.0.2 is not on this node"},
		{wrap(unix.ENOPROTOOPT), "CONFIG_TCP_MD5SIG"},
		{errors.New("something else"), "10.0.0.1 port 179: something else"},
	} {
		if got := connectError(p, tc.err); !strings.Contains(got, tc.want) {
			t.Errorf("%v is %q, want %q in it", tc.err, got, tc.want)
		}
	}
}

// TestBridge checks what becomes of gobgp's lines, and what is remembered of them.
func TestBridge(t *testing.T) {
	var out bytes.Buffer
	heard := 0
	b := newBridge(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 4})), func() { heard++ })
	key := func(more ...any) gobgplog.Fields {
		f := gobgplog.Fields{"Topic": "Peer", "Key": "10.0.0.1"}
		for i := 0; i < len(more); i += 2 {
			f[more[i].(string)] = more[i+1]
		}
		return f
	}
	for _, tc := range []struct {
		say   func(string, gobgplog.Fields)
		msg   string
		level string
	}{
		{b.Error, "x", "ERROR"}, {b.Warn, "x", "WARN"}, {b.Info, "x", "DEBUG"}, {b.Debug, "x", "DEBUG-4"}, {b.Fatal, "x", "ERROR"},
		{b.Warn, "hold timer expired", "DEBUG-4"}, {b.Info, "Peer Up", "DEBUG-4"},
	} {
		out.Reset()
		tc.say(tc.msg, key("State", bgp.BGP_FSM_IDLE))
		want := fmt.Sprintf("level=%s msg=", tc.level)
		if got := out.String(); !strings.Contains(got, want) || !strings.Contains(got, "gobgp: "+tc.msg) || !strings.Contains(got, "key=10.0.0.1") {
			t.Errorf("%q came out as %q, want %s", tc.msg, got, want)
		}
	}
	failure := errors.New("refused")
	b.Debug("failed to connect", key("Error", failure))
	if heard != 1 || b.takeConnect("10.0.0.2") != nil || !errors.Is(b.takeConnect("10.0.0.1"), failure) || b.takeConnect("10.0.0.1") != nil {
		t.Errorf("a failure to connect, heard %d times, is not handed out once", heard)
	}
	b.Warn("received notification", key("Code", uint8(6), "Subcode", uint8(4), "Communicated-Reason", "upgrade"))
	if n := b.take("10.0.0.1"); n.notification != `the router ended it: cease: administrative reset: "upgrade"` {
		t.Errorf("note %+v", n)
	}
	b.Warn("sent notification", key("Data", bgp.NewMessageError(2, 2, nil, "as number mismatch")))
	if n := b.take("10.0.0.1"); n.notification != "this node ended it: OPEN message error: bad peer AS (as number mismatch)" {
		t.Errorf("note %+v", n)
	}
	if n := b.take("10.0.0.1"); n != (note{}) {
		t.Errorf("taken twice: %+v", n)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Panic returns")
			}
		}()
		b.Panic("code logic bug", key())
	}()
}
