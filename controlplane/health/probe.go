package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

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
	to := netip.AddrPortFrom(c.Address, c.Port)
	if c.Kind == HTTP {
		return directHTTP(c, to)
	}
	return func(ctx context.Context) error {
		conn, err := dial(ctx, to)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// dial connects so that Close resets the connection instead of ending it in
// order (SO_LINGER of zero, socket(7)): otherwise thousands of checks leave
// tens of thousands of ports in TIME_WAIT.
func dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("set SO_LINGER: %w", err)
	}
	return conn, nil
}

// directHTTP makes one request per connection, and judges the answer to that
// request only: a redirect is an answer. A body that breaks off is a failure;
// of a long one, the beginning is enough.
func directHTTP(c Check, to netip.AddrPort) probe {
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(ctx, to)
			},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, c.Method, "http://"+to.String()+c.Path, nil)
		if err != nil {
			return fmt.Errorf("make request: %w", err)
		}
		request.Host = c.Host
		request.Header.Set("User-Agent", "weir-health")
		response, err := client.Do(request)
		if err != nil {
			var outer *url.Error // repeats method and URL
			if errors.As(err, &outer) {
				err = outer.Err
			}
			return fmt.Errorf("request: %w", err)
		}
		defer response.Body.Close()
		if _, err := io.CopyN(io.Discard, response.Body, maxBody); err != nil && err != io.EOF {
			return fmt.Errorf("read body: %w", err)
		}
		good := func(r Codes) bool { return r.Lo <= response.StatusCode && response.StatusCode <= r.Hi }
		if !slices.ContainsFunc(c.Codes, good) {
			return fmt.Errorf("status %d, want %s", response.StatusCode, list(c.Codes))
		}
		return nil
	}
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
