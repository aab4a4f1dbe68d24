package traffic

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Client talks to a [Server], through whatever is in between, and verifies all
// it gets. Each call uses a new connection. Its methods may be called by several
// goroutines.
type Client struct {
	// Dial opens the connections; nil means package net.
	Dial DialFunc

	// Timeout bounds each call, unless its context has an earlier deadline; 0
	// is no bound.
	Timeout time.Duration
}

func (c *Client) dial() DialFunc {
	if c.Dial != nil {
		return c.Dial
	}
	return new(net.Dialer).DialContext
}

func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.Timeout > 0 {
		return context.WithTimeout(ctx, c.Timeout)
	}
	return context.WithCancel(ctx)
}

// Fetch downloads n bytes.
func (c *Client) Fetch(ctx context.Context, target netip.AddrPort, n int64) Result {
	return c.once(ctx, target, func(ctx context.Context, s *session) error { return s.download(ctx, n, 0) })
}

// FetchSlow downloads n bytes that the server sends at a rate in bytes per
// second.
func (c *Client) FetchSlow(ctx context.Context, target netip.AddrPort, n, rate int64) Result {
	return c.once(ctx, target, func(ctx context.Context, s *session) error { return s.download(ctx, n, rate) })
}

// Upload sends n bytes and compares length and SHA-256 with what the server
// says it got.
func (c *Client) Upload(ctx context.Context, target netip.AddrPort, n int64) Result {
	return c.once(ctx, target, func(ctx context.Context, s *session) error { return s.upload(ctx, n) })
}

// WhoAmI asks the server what it sees of the client.
func (c *Client) WhoAmI(ctx context.Context, target netip.AddrPort) (WhoAmI, error) {
	var who WhoAmI
	result := c.once(ctx, target, func(ctx context.Context, s *session) error { return s.getJSON(ctx, "/whoami", &who) })
	return who, result.Err
}

// Get makes a request for a path, of which only that the answer is 200 and whole
// is verified: for servers that are not a [Server], as long as they name
// themselves as one does.
func (c *Client) Get(ctx context.Context, target netip.AddrPort, path string) Result {
	return c.once(ctx, target, func(ctx context.Context, s *session) error {
		return s.do(ctx, http.MethodGet, path, nil, 0, func(body io.Reader) error {
			n, err := io.Copy(io.Discard, body)
			s.bytes += n
			return err
		})
	})
}

// Healthy asks for the server's health: nil if it says it is well.
func (c *Client) Healthy(ctx context.Context, target netip.AddrPort) error {
	return c.Get(ctx, target, "/healthz").Err
}

// once runs f over a connection of its own.
func (c *Client) once(ctx context.Context, target netip.AddrPort, f func(context.Context, *session) error) Result {
	return measure(target, func(r *Result) error {
		ctx, cancel := c.withTimeout(ctx)
		defer cancel()
		s, err := c.open(ctx, target)
		if err != nil {
			return err
		}
		defer s.close()
		err = f(ctx, s)
		r.Local, r.Backend, r.Bytes = s.local, s.backend, s.bytes
		return err
	})
}

// measure fills in a Result around f.
func measure(target netip.AddrPort, f func(*Result) error) Result {
	r := Result{Start: time.Now(), Remote: target}
	r.Err = f(&r)
	r.Duration = time.Since(r.Start)
	return r
}

// session is one TCP connection, over which one request after another is made.
// HTTP is written and read here without a transport between, so that a session
// is exactly one connection and its errors are the socket's own.
type session struct {
	conn    net.Conn
	reader  *bufio.Reader
	local   netip.AddrPort
	remote  netip.AddrPort
	backend string // who answered the first request
	bytes   int64  // of payload verified
}

func (c *Client) open(ctx context.Context, target netip.AddrPort) (*session, error) {
	conn, err := c.dial()(ctx, "tcp", target.String())
	if err != nil {
		return nil, because(ctx, fmt.Errorf("connect to %s: %w", target, err))
	}
	return &session{conn: conn, reader: bufio.NewReader(conn), local: addrPort(conn.LocalAddr()), remote: target}, nil
}

func (s *session) close() { s.conn.Close() }

// download fetches n bytes, at a rate in bytes per second, 0 for as fast as can
// be.
func (s *session) download(ctx context.Context, n, rate int64) error {
	seed := rand.Uint64()
	path := fmt.Sprintf("/bytes?n=%d&seed=%d", n, seed)
	if rate > 0 {
		path = fmt.Sprintf("/slow?n=%d&rate=%d&seed=%d", n, rate, seed)
	}
	return s.do(ctx, http.MethodGet, path, nil, 0, func(body io.Reader) error {
		verified, err := verify(body, seed, n)
		s.bytes += verified
		return err
	})
}

func (s *session) upload(ctx context.Context, n int64) error {
	hash := sha256.New()
	body := io.TeeReader(io.LimitReader(content(rand.Uint64()), n), hash)
	var got Upload
	err := s.do(ctx, http.MethodPost, "/upload", body, n, func(answer io.Reader) error {
		return decode(answer, &got)
	})
	if err != nil {
		return err
	}
	if want := hex.EncodeToString(hash.Sum(nil)); got.Bytes != n || got.SHA256 != want {
		return fmt.Errorf("upload of %d bytes arrived as %d bytes with another sha-256: %w", n, got.Bytes, ErrCorrupt)
	}
	s.bytes += n
	return nil
}

func (s *session) getJSON(ctx context.Context, path string, v any) error {
	return s.do(ctx, http.MethodGet, path, nil, 0, func(body io.Reader) error { return decode(body, v) })
}

func decode(body io.Reader, v any) error {
	data, err := io.ReadAll(body) // to its end: the next answer follows
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// do makes one request with a body of n bytes and has read consume the body of
// the answer.
func (s *session) do(ctx context.Context, method, path string, body io.Reader, n int64, read func(io.Reader) error) error {
	operation := method + " " + path
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.remote.String()+path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	request.ContentLength = n
	release := bound(ctx, s.conn)
	defer release()
	if err := request.Write(s.conn); err != nil {
		return because(ctx, fmt.Errorf("%s: send request: %w", operation, err))
	}
	response, err := http.ReadResponse(s.reader, request)
	if err != nil {
		return because(ctx, fmt.Errorf("%s: await answer: %w", operation, err))
	}
	defer response.Body.Close()
	backend := response.Header.Get(backendHeader)
	if s.backend == "" {
		s.backend = backend
	}
	if backend != s.backend {
		return fmt.Errorf("%s: by %q after %q: %w", operation, backend, s.backend, ErrMoved)
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		return fmt.Errorf("%s: %s: %q", operation, response.Status, text)
	}
	if err := read(response.Body); err != nil {
		return because(ctx, fmt.Errorf("%s: read answer: %w", operation, err))
	}
	return nil
}

// bound makes reads and writes of conn fail once ctx is done, until release is
// called.
func bound(ctx context.Context, conn net.Conn) (release func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0))
		close(ended)
	})
	return func() {
		if !stop() {
			<-ended
			_ = conn.SetDeadline(time.Time{}) // the connection may be used again
		}
	}
}

// because adds to err why ctx is done, if it is: "i/o timeout" alone does not
// tell a caller's cancellation from a lost packet.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, cause)
}
