package traffic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// MaxEcho is the longest payload in bytes that can be echoed: the answer, which
// is longer, has to fit a datagram too.
const MaxEcho = 60000

// An echo answer is "name|client address and port|payload".
type echoAnswer struct {
	backend string
	client  netip.AddrPort // as the server sees it
	payload []byte
}

func checkName(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsAny(name, "|\r\n") {
		return fmt.Errorf("name %q: want 1 to 255 bytes without '|' and line ends", name)
	}
	return nil
}

// appendTo appends the answer's datagram to b.
func (a echoAnswer) appendTo(b []byte) []byte {
	b = append(b, a.backend...)
	b = append(b, '|')
	b = a.client.AppendTo(b)
	b = append(b, '|')
	return append(b, a.payload...)
}

// parseEcho takes a datagram apart; the payload stays part of it.
func parseEcho(datagram []byte) (echoAnswer, error) {
	parts := bytes.SplitN(datagram, []byte{'|'}, 3)
	if len(parts) != 3 {
		return echoAnswer{}, errors.New("parse echo answer: want name|client|payload")
	}
	name := string(parts[0])
	if err := checkName(name); err != nil {
		return echoAnswer{}, fmt.Errorf("parse echo answer: %w", err)
	}
	client, err := netip.ParseAddrPort(string(parts[1]))
	if err != nil {
		return echoAnswer{}, fmt.Errorf("parse echo answer: %w", err)
	}
	return echoAnswer{backend: name, client: client, payload: parts[2]}, nil
}

// echo answers datagrams until the socket is closed.
func (s *Server) echo(c net.PacketConn) error {
	in, out := make([]byte, 1<<16), make([]byte, 0, 1<<16)
	for {
		n, from, err := c.ReadFrom(in)
		if err != nil {
			return err
		}
		out = echoAnswer{s.name, addrPort(from), in[:n]}.appendTo(out[:0])
		if _, err := c.WriteTo(out, from); err != nil {
			s.log.Debug("echo not sent", "client", from, "err", err)
		}
	}
}

// EchoConn is one UDP flow: all its datagrams have the same addresses and
// ports. It is used by one goroutine at a time.
type EchoConn struct {
	client   *Client
	conn     net.Conn
	remote   netip.AddrPort
	sequence uint64 // of the last datagram, its first 8 bytes
	out, in  []byte

	// Client is the flow's client address as the backend last saw it.
	Client netip.AddrPort
}

// OpenEcho opens a UDP flow to an echo server. Nothing is sent yet.
func (c *Client) OpenEcho(ctx context.Context, target netip.AddrPort) (*EchoConn, error) {
	conn, err := c.dial()(ctx, "udp", target.String())
	if err != nil {
		return nil, fmt.Errorf("open echo to %s: %w", target, err)
	}
	return &EchoConn{client: c, conn: conn, remote: target, in: make([]byte, 1<<16)}, nil
}

// Echo sends one datagram, the payload behind a sequence number, and verifies
// the answer to it. The socket is connected, so an answer from another address
// than the target's never arrives. A lost datagram is an error once the
// client's timeout, or the context, is over. Late answers to earlier datagrams
// are passed over.
func (e *EchoConn) Echo(ctx context.Context, payload []byte) Result {
	return measure(e.remote, func(r *Result) error {
		r.Local = addrPort(e.conn.LocalAddr())
		if len(payload) > MaxEcho {
			return fmt.Errorf("echo: payload of %d bytes, the most is %d", len(payload), MaxEcho)
		}
		ctx, cancel := e.client.withTimeout(ctx)
		defer cancel()
		release := bound(ctx, e.conn)
		defer release()

		e.sequence++
		e.out = append(binary.BigEndian.AppendUint64(e.out[:0], e.sequence), payload...)
		if _, err := e.conn.Write(e.out); err != nil {
			return because(ctx, fmt.Errorf("send datagram: %w", err))
		}
		for {
			n, err := e.conn.Read(e.in)
			if err != nil {
				return because(ctx, fmt.Errorf("await answer: %w", err))
			}
			answer, err := parseEcho(e.in[:n])
			if err != nil {
				return fmt.Errorf("%w: %w", err, ErrCorrupt)
			}
			if len(answer.payload) >= 8 && binary.BigEndian.Uint64(answer.payload) < e.sequence {
				continue
			}
			r.Backend, e.Client = answer.backend, answer.client
			if !bytes.Equal(answer.payload, e.out) {
				return fmt.Errorf("answer to datagram %d: %w", e.sequence, ErrCorrupt)
			}
			r.Bytes = int64(2 * len(payload))
			return nil
		}
	})
}

// Close closes the flow's socket.
func (e *EchoConn) Close() error { return e.conn.Close() }

// Echo sends one datagram from a new socket and verifies the answer.
func (c *Client) Echo(ctx context.Context, target netip.AddrPort, payload []byte) Result {
	start := time.Now()
	e, err := c.OpenEcho(ctx, target)
	if err != nil {
		return Result{Start: start, Duration: time.Since(start), Remote: target, Err: err}
	}
	defer e.Close()
	return e.Echo(ctx, payload)
}
