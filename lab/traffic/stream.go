package traffic

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
)

// stream serves TCP echo until the listener is closed: a line "name|client
// address and port", and then whatever the client sends.
func (s *Server) stream(ctx context.Context, l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := s.echoBytes(conn); err != nil {
				s.log.Debug("stream ended", "client", conn.RemoteAddr(), "err", err)
			}
		}()
	}
}

// echoBytes needs little memory: there may be tens of thousands of streams.
func (s *Server) echoBytes(conn net.Conn) error {
	buf := append(make([]byte, 0, 2048), s.name...)
	buf = append(buf, '|')
	buf = append(addrPort(conn.RemoteAddr()).AppendTo(buf), '\n')
	for {
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		buf = buf[:cap(buf)]
		n, err := conn.Read(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		buf = buf[:n]
	}
}

// Stream is one TCP connection to a server that echoes bytes. It is used by one
// goroutine at a time.
type Stream struct {
	Backend string         // who answered
	Client  netip.AddrPort // the client's address as the backend sees it

	client   *Client
	conn     net.Conn
	remote   netip.AddrPort
	sequence uint64 // of the last message, its first 8 bytes
	out, in  []byte
}

// OpenStream connects to an echo server and waits until it has said who it is.
func (c *Client) OpenStream(ctx context.Context, target netip.AddrPort) (*Stream, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	conn, err := c.dial()(ctx, "tcp", target.String())
	if err != nil {
		return nil, because(ctx, fmt.Errorf("open stream to %s: %w", target, err))
	}
	s := &Stream{client: c, conn: conn, remote: target}
	if err := s.greeting(ctx); err != nil {
		conn.Close()
		return nil, because(ctx, fmt.Errorf("open stream from %s to %s: await greeting: %w", conn.LocalAddr(), target, err))
	}
	return s, nil
}

func (s *Stream) greeting(ctx context.Context) error {
	release := bound(ctx, s.conn)
	defer release()
	line, err := bufio.NewReaderSize(s.conn, 512).ReadString('\n') // nothing follows before it is asked for
	if err != nil {
		return err
	}
	name, client, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
	if err := checkName(name); err != nil {
		return fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	s.Backend = name
	if s.Client, err = netip.ParseAddrPort(client); err != nil {
		return fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return nil
}

// Local returns the client's end of the connection.
func (s *Stream) Local() netip.AddrPort { return addrPort(s.conn.LocalAddr()) }

// Echo sends the payload behind a sequence number, and verifies what comes back.
// After an error the stream is of no use any more.
func (s *Stream) Echo(ctx context.Context, payload []byte) Result {
	return measure(s.remote, func(r *Result) error {
		r.Local, r.Backend = s.Local(), s.Backend
		ctx, cancel := s.client.withTimeout(ctx)
		defer cancel()
		release := bound(ctx, s.conn)
		defer release()

		s.sequence++
		s.out = append(binary.BigEndian.AppendUint64(s.out[:0], s.sequence), payload...)
		if _, err := s.conn.Write(s.out); err != nil {
			return because(ctx, fmt.Errorf("send: %w", err))
		}
		s.in = append(s.in[:0], s.out...)
		clear(s.in)
		if _, err := io.ReadFull(s.conn, s.in); err != nil {
			return because(ctx, fmt.Errorf("await echo: %w", err))
		}
		if !bytes.Equal(s.in, s.out) {
			return fmt.Errorf("echo %d: %w", s.sequence, ErrCorrupt)
		}
		r.Bytes = int64(2 * len(payload))
		return nil
	})
}

// Close closes the connection, in order.
func (s *Stream) Close() error { return s.conn.Close() }
