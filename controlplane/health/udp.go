package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// UDP sends one datagram and wants one back. A port that is closed, which
// shows as an ICMP error, is a failure at once.
type UDP struct {
	Send        []byte // may be empty
	Expect      string // regular expression (RE2) that the answer matches; "": any answer
	ExpectBytes []byte // what the answer is, exactly; empty: any answer
}

func (UDP) String() string { return "udp" }

func (u UDP) complete() Probe {
	u.Send, u.ExpectBytes = slices.Clone(u.Send), slices.Clone(u.ExpectBytes)
	return u
}

func (u UDP) prepare(e *equipment, to netip.AddrPort) (attempt, error) {
	var match *regexp.Regexp
	if u.Expect != "" {
		var err error
		if match, err = regexp.Compile(u.Expect); err != nil {
			return nil, fmt.Errorf("compile what the answer has to match: %w", err)
		}
	}
	return func(ctx context.Context) error {
		conn, err := e.dial(ctx, "udp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		defer limited(ctx, conn)()
		if _, err := conn.Write(u.Send); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		buf := e.shared.datagrams.Get().(*[maxDatagram]byte)
		defer e.shared.datagrams.Put(buf)
		n, err := conn.Read(buf[:])
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		return u.judge(buf[:n], match)
	}, nil
}

func (u *UDP) judge(answer []byte, match *regexp.Regexp) error {
	if match != nil && !match.Match(answer) {
		return fmt.Errorf("answer %s does not match %q", excerpt(answer), u.Expect)
	}
	if len(u.ExpectBytes) > 0 && !bytes.Equal(answer, u.ExpectBytes) {
		return errors.New("answer " + excerpt(answer) + ", want " + excerpt(u.ExpectBytes))
	}
	return nil
}
