package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxBody   = 64 << 10 // bytes of a response's body that are read
	maxHeader = 64 << 10 // bytes of its header that are accepted
)

// HTTP makes an HTTP/1.1 request and looks at the status code, and at the body
// if it is to match. A redirect is an answer and not followed. A body that
// breaks off is a failure; of one longer than 64 KiB, the beginning is enough.
type HTTP struct {
	Path   string  // request target, from its "/" on; "/" if empty
	Host   string  // Host header; address and port if empty
	Method string  // GET if empty
	Codes  []Codes // which status codes are good; 200-399 if empty
	Body   string  // regular expression (RE2) that the first 64 KiB of the body match; "": any body
	TLS    *TLS    // nil: plain HTTP
}

// Codes is a range of HTTP status codes, both ends included.
type Codes struct{ Lo, Hi int }

// String returns the range as "200-399", a single code as "204".
func (c Codes) String() string {
	if c.Lo == c.Hi {
		return strconv.Itoa(c.Lo)
	}
	return fmt.Sprintf("%d-%d", c.Lo, c.Hi)
}

func (h HTTP) String() string {
	if h.TLS != nil {
		return "https"
	}
	return "http"
}

func (h HTTP) complete() Probe {
	if h.Path == "" {
		h.Path = "/"
	}
	if h.Method == "" {
		h.Method = http.MethodGet
	}
	if h.Codes = slices.Clone(h.Codes); len(h.Codes) == 0 {
		h.Codes = []Codes{{200, 399}}
	}
	h.TLS = h.TLS.clone()
	return h
}

// httpProbe is an HTTP prepared for one target.
//
// It does without http.Client: a Transport finishes dialling in the background
// after its request was given up, and has nothing to offer for one request on
// one connection.
type httpProbe struct {
	HTTP
	*equipment
	to      netip.AddrPort
	method  *http.Request // what a response is read as an answer to
	request []byte
	body    *regexp.Regexp // may be nil
	tls     *client        // may be nil
}

func (h HTTP) prepare(e *equipment, to netip.AddrPort) (attempt, error) {
	p := &httpProbe{HTTP: h, equipment: e, to: to, method: &http.Request{Method: h.Method}}
	request, err := http.NewRequest(h.Method, h.String()+"://"+authorityOf(to)+h.Path, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	request.Host = h.Host // if empty, Write takes the URL's
	request.Close = true
	request.Header.Set("User-Agent", userAgent)
	var text bytes.Buffer
	if err := request.Write(&text); err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	p.request = text.Bytes()
	if h.Body != "" {
		if p.body, err = regexp.Compile(h.Body); err != nil {
			return nil, fmt.Errorf("compile what the body has to match: %w", err)
		}
	}
	if h.TLS != nil {
		p.tls = e.shared.credentials.client(*h.TLS, hostName(h.Host, to))
	}
	return p.attempt, nil
}

// authorityOf returns an address as it is written in a URL. A zone means nothing
// to the other side.
func authorityOf(to netip.AddrPort) string {
	return netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port()).String()
}

// hostName returns the name of a server in a Host header, or else its address.
func hostName(host string, to netip.AddrPort) string {
	if host == "" {
		return to.Addr().Unmap().WithZone("").String()
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.Trim(host, "[]")
}

func (p *httpProbe) attempt(ctx context.Context) error {
	var config *tls.Config
	if p.tls != nil {
		var err error
		if config, err = p.tls.config(); err != nil {
			return err
		}
	}
	conn, err := p.dial(ctx, "tcp", p.to)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer limited(ctx, conn)()
	if config == nil {
		return p.exchange(conn)
	}
	secured := tls.Client(conn, config)
	if err := secured.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return p.exchange(secured)
}

// exchange makes the request and judges the answer.
func (p *httpProbe) exchange(conn net.Conn) error {
	if _, err := conn.Write(p.request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	in := p.shared.read(conn, maxHeader)
	defer p.shared.done(in)
	response, err := http.ReadResponse(in.reader, p.method)
	for err == nil && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
		response, err = http.ReadResponse(in.reader, p.method) // after interim ones, RFC 9110 section 15.2
	}
	if err != nil {
		return fmt.Errorf("read response: %w", err)
	}
	good := func(r Codes) bool { return r.Lo <= response.StatusCode && response.StatusCode <= r.Hi }
	if !slices.ContainsFunc(p.Codes, good) {
		return fmt.Errorf("status %d, want %s", response.StatusCode, list(p.Codes))
	}
	in.limit.N = math.MaxInt64
	if p.body == nil {
		if _, err := io.CopyN(io.Discard, response.Body, maxBody); err != nil && err != io.EOF {
			return fmt.Errorf("read body: %w", err)
		}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if !p.body.Match(body) {
		return fmt.Errorf("body %s does not match %q", excerpt(body), p.Body)
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

// excerpt returns the beginning of an answer in a form that can be logged.
func excerpt(answer []byte) string {
	const enough = 64
	if len(answer) <= enough {
		return strconv.Quote(string(answer))
	}
	return fmt.Sprintf("%q...", answer[:enough])
}
