package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxBody   = 64 << 10 // bytes of an HTTP response's body that are read
	maxHeader = 64 << 10 // bytes of its header that are accepted
)

// probe is one attempt. It ends when ctx does, at the latest.
type probe func(ctx context.Context) error

// direct returns the probe of a check over the kernel's sockets, to the
// backend's own address.
func direct(c Check) probe {
	to := netip.AddrPortFrom(c.Address, c.Port).String()
	return func(ctx context.Context) error {
		conn, err := dial(ctx, to)
		if err != nil {
			return err
		}
		defer conn.Close()
		if c.Kind == HTTP {
			return c.exchange(ctx, conn, to)
		}
		return nil
	}
}

// dial connects so that Close resets the connection instead of ending it in
// order (SO_LINGER of zero, socket(7)): otherwise thousands of checks leave
// tens of thousands of ports in TIME_WAIT.
func dial(ctx context.Context, to string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	conn, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("set SO_LINGER: %w", err)
	}
	return conn, nil
}

// exchange makes one HTTP/1.1 request and judges the answer to it. A redirect
// is an answer. A body that breaks off is a failure; of a long one, the
// beginning is enough.
//
// It does without http.Client: a Transport finishes dialling in the background
// after its request was given up, and has nothing to offer for one request on
// one connection.
func (c *Check) exchange(ctx context.Context, conn net.Conn, to string) error {
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer interrupt()

	request, err := http.NewRequestWithContext(ctx, c.Method, "http://"+to+c.Path, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	request.Host = c.Host // if empty, Write takes the URL's
	request.Close = true
	request.Header.Set("User-Agent", "weir-health")
	if err := request.Write(conn); err != nil {
		return fmt.Errorf("send request: %w", err)
	}

	limit := &io.LimitedReader{R: conn, N: maxHeader}
	reader := bufio.NewReader(limit)
	response, err := http.ReadResponse(reader, request)
	for err == nil && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
		response, err = http.ReadResponse(reader, request) // after interim ones, RFC 9110 section 15.2
	}
	if err != nil {
		return fmt.Errorf("read response: %w", err)
	}
	good := func(r Codes) bool { return r.Lo <= response.StatusCode && response.StatusCode <= r.Hi }
	if !slices.ContainsFunc(c.Codes, good) {
		return fmt.Errorf("status %d, want %s", response.StatusCode, list(c.Codes))
	}
	limit.N = math.MaxInt64
	if _, err := io.CopyN(io.Discard, response.Body, maxBody); err != nil && err != io.EOF {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

func list(codes []Codes) string {
	texts := make([]string, len(codes))
	for i, c := range codes {
		texts[i] = c.String()
	}
	return strings.Join(texts, " or ")
}

// ours says whether a probe failed for want of something on this machine, and
// so says nothing about the backend.
func ours(err error) bool {
	for _, errno := range []unix.Errno{
		unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS,
		unix.EADDRNOTAVAIL, // no local port is free, connect(2)
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
