package health

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"log"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpctls "google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func serveGRPC(t *testing.T, addr string, options ...grpc.ServerOption) netip.AddrPort {
	t.Helper()
	l, at := listen(t, addr)
	state := grpchealth.NewServer()
	state.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_SERVING)
	state.SetServingStatus("sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer(options...)
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return at
}

func TestGRPCProbe(t *testing.T) {
	ca := newAuthority(t)
	certificate := ca.issue(t, "127.0.0.1", "::1", "grpc.example.org")
	secure := &TLS{Verify: true, CA: ca.file(t)}
	tests := []struct {
		name  string
		probe GRPC
		want  string
	}{
		{"server", GRPC{}, ""},
		{"service", GRPC{Service: "shop"}, ""},
		{"not serving", GRPC{Service: "sick"}, "health status NOT_SERVING, want SERVING"},
		{"unknown", GRPC{Service: "none"}, `grpc status NotFound: "unknown service"`},
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		plain := serveGRPC(t, addr)
		secured := serveGRPC(t, addr, grpc.Creds(grpctls.NewServerTLSFromCert(&certificate)))
		for _, tt := range tests {
			t.Run(addr+" "+tt.name, func(t *testing.T) {
				expect(t, try(t, Check{Targets: []netip.AddrPort{plain}, Probe: tt.probe}, time.Minute), tt.want)
				tt.probe.TLS = secure
				expect(t, try(t, Check{Targets: []netip.AddrPort{secured}, Probe: tt.probe}, time.Minute), tt.want)
			})
		}
		t.Run(addr+" other name", func(t *testing.T) {
			other := *secure
			other.ServerName = "other.example.org"
			expect(t, try(t, Check{Targets: []netip.AddrPort{secured}, Probe: GRPC{TLS: &other}}, time.Minute), "TLS handshake: tls: failed to verify")
		})
	}
}

func TestGRPCProbeOfWhatIsNotGRPC(t *testing.T) {
	certificate := newAuthority(t).issue(t, "127.0.0.1")
	over1 := serve(t, "127.0.0.1", http.NotFoundHandler())
	tls1 := serveTLS(t, "127.0.0.1", &tls.Config{Certificates: []tls.Certificate{certificate}})
	_, silent := listen(t, "127.0.0.1")
	over2 := func(handler http.HandlerFunc) netip.AddrPort {
		l, at := listen(t, "127.0.0.1")
		server := &http.Server{Handler: handler, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		return at
	}
	closed, at := listen(t, "127.0.0.1")
	_ = closed.Close()
	for _, tt := range []struct {
		name  string
		at    netip.AddrPort
		probe GRPC
		want  string
	}{
		{"HTTP/1.1", over1, GRPC{}, "request: "},
		{"HTTP/1.1 over TLS", tls1, GRPC{TLS: &TLS{}}, "the server does not offer HTTP/2"},
		{"closed", at, GRPC{}, "connection refused"},
		{"no CA file", at, GRPC{TLS: &TLS{CA: "/nonexistent"}}, "cannot be made on this box: read CA"},
		{"nothing", silent, GRPC{}, "no answer within"},
		{"nothing over TLS", silent, GRPC{TLS: &TLS{}}, "no answer within"},
		{"no page", over2(http.NotFound), GRPC{}, "HTTP status 404"},
		{"a page", over2(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }), GRPC{}, "content type"},
		{"endless", over2(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			for {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}), GRPC{}, "an answer of more than 4096 bytes"},
		{"stuck", over2(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = w.Write([]byte{0})
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}), GRPC{}, "no answer within"},
		{"no status", over2(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/grpc") }), GRPC{}, `grpc status "" is no number`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timeout := time.Minute
			if strings.HasPrefix(tt.want, "no answer") {
				timeout = 100 * time.Millisecond
			}
			expect(t, try(t, Check{Targets: []netip.AddrPort{tt.at}, Probe: tt.probe}, timeout), tt.want)
		})
	}
}

// No probe may leave a goroutine or a file behind.
func TestGRPCProbeLeavesNothing(t *testing.T) {
	plain := serveGRPC(t, "127.0.0.1")
	_, silent := listen(t, "127.0.0.1")
	before := runtime.NumGoroutine()
	for range 50 {
		_ = try(t, Check{Targets: []netip.AddrPort{plain}, Probe: GRPC{}}, time.Minute)
		_ = try(t, Check{Targets: []netip.AddrPort{silent}, Probe: GRPC{}}, time.Millisecond)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; { // bounds a failing test only
		if time.Now().After(deadline) {
			t.Fatalf("from %d goroutines to %d", before, runtime.NumGoroutine())
		}
		time.Sleep(time.Millisecond)
	}
}

func FuzzGRPCAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1}, "0")   // SERVING
	f.Add([]byte{0, 0, 0, 0, 2, 8, 2}, "0")   // NOT_SERVING
	f.Add([]byte{0, 0, 0, 0, 0}, "0")         // UNKNOWN, which is not encoded
	f.Add([]byte{1, 0, 0, 0, 2, 8, 1}, "0")   // compressed
	f.Add([]byte{0, 0, 0, 0, 3, 8, 1}, "0")   // short
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1}, "5")   // not found
	f.Add([]byte{0, 255, 255, 255, 255}, "0") // 4 GiB
	f.Fuzz(func(t *testing.T, body []byte, status string) {
		if judgeHealth(body, http.Header{"Grpc-Status": {status}}) != nil {
			return
		}
		// A naive reading: a whole uncompressed message, which names SERVING.
		if strings.Trim(status, "0") != "" || len(body) < 7 || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
			t.Fatalf("took % x with status %q", body, status)
		}
	})
}
