package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// GRPC asks grpc.health.v1.Health/Check
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). Only
// SERVING is good.
type GRPC struct {
	Service string // "" stands for the server as a whole
	TLS     *TLS   // nil: HTTP/2 in plain text, with prior knowledge
}

func (GRPC) String() string { return "grpc" }

func (g GRPC) complete() Probe {
	g.TLS = g.TLS.clone()
	return g
}

const (
	grpcMethod  = "/grpc.health.v1.Health/Check"
	grpcMessage = 4 << 10 // bytes of an answer that are accepted
	grpcPrefix  = 5       // bytes before a message: compressed or not, and its length
)

// grpcProbe is a GRPC prepared for one target.
//
// It speaks HTTP/2 by net/http. A grpc.ClientConn brings resolvers, balancers
// and their goroutines to what is one request on one connection: 290 µs of CPU
// for a probe instead of 180, server included.
type grpcProbe struct {
	*equipment
	to        netip.AddrPort
	url       string
	body      []byte
	tls       *client // may be nil
	transport *http.Transport
}

func (g GRPC) prepare(e *equipment, to netip.AddrPort) (attempt, error) {
	message, err := proto.Marshal(&grpc_health_v1.HealthCheckRequest{Service: g.Service})
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	p := &grpcProbe{equipment: e, to: to, body: append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return p.connect(ctx) }
	p.transport = &http.Transport{
		DialContext: dial, DialTLSContext: dial,
		Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
	}
	p.url = "http://" + authorityOf(to) + grpcMethod
	p.transport.Protocols.SetUnencryptedHTTP2(true)
	if g.TLS != nil {
		p.url = "https://" + authorityOf(to) + grpcMethod
		p.transport.Protocols.SetHTTP2(true)
		p.tls = e.shared.credentials.client(*g.TLS, hostName("", to), "h2")
	}
	return p.attempt, nil
}

func (p *grpcProbe) connect(ctx context.Context) (net.Conn, error) {
	var config *tls.Config
	if p.tls != nil {
		var err error
		if config, err = p.tls.config(); err != nil {
			return nil, err
		}
	}
	conn, err := p.dial(ctx, "tcp", p.to)
	if err != nil || config == nil {
		return conn, err
	}
	stop := limited(ctx, conn)
	defer stop()
	secured := tls.Client(conn, config)
	err = secured.Handshake()
	if err == nil && secured.ConnectionState().NegotiatedProtocol != "h2" {
		err = errors.New("the server does not offer HTTP/2")
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

func (p *grpcProbe) attempt(ctx context.Context) error {
	scheme, _, _ := strings.Cut(p.url, ":")
	conn, err := p.transport.NewClientConn(ctx, scheme, authorityOf(p.to))
	if err != nil {
		return err
	}
	defer conn.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(p.body))
	if err != nil {
		return fmt.Errorf("%w: make request: %w", ErrUnable, err)
	}
	// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
	request.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {userAgent}}
	response, err := conn.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %d, want 200", response.StatusCode)
	}
	if kind := response.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/grpc") {
		return fmt.Errorf("content type %s, want application/grpc", excerpt([]byte(kind)))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, grpcMessage+1))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if len(body) > grpcMessage {
		return fmt.Errorf("an answer of more than %d bytes", grpcMessage)
	}
	trailer := response.Trailer
	if trailer.Get("Grpc-Status") == "" {
		trailer = response.Header // an answer of trailers only
	}
	return judgeHealth(body, trailer)
}

// judgeHealth looks at the answer to a health check, which is all from the
// network: the status of the call, then that of the service.
func judgeHealth(body []byte, trailer http.Header) error {
	text := trailer.Get("Grpc-Status")
	code, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("grpc status %s is no number", excerpt([]byte(text)))
	}
	if code != uint64(codes.OK) {
		return fmt.Errorf("grpc status %v: %s", codes.Code(code), excerpt([]byte(trailer.Get("Grpc-Message"))))
	}
	if len(body) < grpcPrefix {
		return errors.New("answer without a message")
	}
	message := body[grpcPrefix:]
	if body[0] != 0 {
		return errors.New("answer is compressed, which nobody asked for")
	}
	if uint32(len(message)) != binary.BigEndian.Uint32(body[1:]) {
		return errors.New("answer is not one whole message")
	}
	var health grpc_health_v1.HealthCheckResponse
	if err := proto.Unmarshal(message, &health); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("health status %v, want SERVING", health.Status)
	}
	return nil
}
