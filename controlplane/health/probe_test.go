package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a listener on a loopback address for the length of the test.
func listen(t *testing.T, addr string) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(addr), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}

func serve(t *testing.T, addr string, handler http.Handler) netip.AddrPort {
	t.Helper()
	l, at := listen(t, addr)
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	server.Start()
	t.Cleanup(server.Close)
	return at
}

func try(t *testing.T, c Check, timeout time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	kernel := NewKernel(nil)
	defer kernel.Close()
	c.Timeout = timeout
	c = c.complete()
	return explain(ctx, attemptOn(c, kernel, newShared())(ctx), timeout)
}

func TestTCPProbe(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			l, at := listen(t, addr)
			c := Check{Targets: []netip.AddrPort{at}}
			if err := try(t, c, 10*time.Second); err != nil {
				t.Fatalf("open port: %v", err)
			}
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Reset, so that nothing is left in TIME_WAIT.
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the connection ended with %v, want %v", err, unix.ECONNRESET)
			}
			_ = l.Close()
			if err := try(t, c, 10*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("closed port: got %v, want %v", err, unix.ECONNREFUSED)
			}
		})
	}
}

func TestHTTPProbe(t *testing.T) {
	var followed atomic.Bool
	mux := http.NewServeMux()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	mux.HandleFunc("/{$}", status(200))
	mux.HandleFunc("/teapot", status(418))
	mux.HandleFunc("/sick", status(503))
	mux.HandleFunc("/nobody", status(204))
	mux.Handle("/moved", http.RedirectHandler("/target", http.StatusFound))
	mux.HandleFunc("/target", func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	mux.HandleFunc("/request", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.Host != "www.example.org" || r.URL.RawQuery != "deep=1" || !r.Close || r.UserAgent() != "weir-health" {
			w.WriteHeader(400)
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/crumbs", func(w http.ResponseWriter, r *http.Request) { // each byte a chunk
		for range 40_000 {
			_, _ = w.Write([]byte{'x'})
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("not a hundred bytes"))
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Long", strings.Repeat("x", 2*maxHeader)) })
	mux.HandleFunc("/interim", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(200)
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/stuck", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("the beginning"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})

	const patient, hasty = time.Minute, 300 * time.Millisecond
	tests := []struct {
		name    string
		probe   HTTP
		timeout time.Duration
		want    string // in the error; "" for success
	}{
		{"default", HTTP{}, patient, ""},
		{"no body", HTTP{Path: "/nobody"}, patient, ""},
		{"HEAD", HTTP{Method: "HEAD"}, patient, ""},
		{"error", HTTP{Path: "/sick"}, patient, "status 503, want 200-399"},
		{"not among codes", HTTP{Codes: []Codes{{201, 204}, {418, 418}}}, patient, "status 200, want 201-204 or 418"},
		{"among codes", HTTP{Path: "/teapot", Codes: []Codes{{201, 204}, {418, 418}}}, patient, ""},
		{"redirect is an answer", HTTP{Path: "/moved"}, patient, ""},
		{"redirect that is not wanted", HTTP{Path: "/moved", Codes: []Codes{{200, 200}}}, patient, "status 302, want 200"},
		{"method, host and query", HTTP{Path: "/request?deep=1", Method: "POST", Host: "www.example.org"}, patient, ""},
		{"long body", HTTP{Path: "/endless"}, patient, ""},
		{"body in crumbs", HTTP{Path: "/crumbs"}, patient, ""},
		{"body breaks off", HTTP{Path: "/broken"}, patient, "read body: unexpected EOF"},
		{"long header", HTTP{Path: "/header"}, patient, "read response: unexpected EOF"},
		{"interim response", HTTP{Path: "/interim", Codes: []Codes{{200, 200}}}, patient, ""},
		{"no answer", HTTP{Path: "/silent"}, hasty, "no answer within 300ms"},
		{"body gets stuck", HTTP{Path: "/stuck"}, hasty, "no answer within 300ms"},
		{"bad path", HTTP{Path: "no slash"}, patient, "make request"},
		{"bad method", HTTP{Method: "G T"}, patient, "make request"},
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		at := serve(t, addr, mux)
		for _, tt := range tests {
			t.Run(addr+" "+tt.name, func(t *testing.T) {
				err := try(t, Check{Targets: []netip.AddrPort{at}, Probe: tt.probe}, tt.timeout)
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("got %v, want success", err)
				case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
					t.Errorf("got %v, want %q", err, tt.want)
				}
			})
		}
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestHTTPProbeOfWhatIsNotHTTP(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":          "",
		"other protocol":   "SSH-2.0-OpenSSH_9.2\r\n",
		"broken off":       "HTTP/1.1 200 OK\r\nContent-",
		"endless interims": strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxHeader),
	} {
		t.Run(name, func(t *testing.T) {
			l, at := listen(t, "127.0.0.1")
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, answer)
			}()
			err := try(t, Check{Targets: []netip.AddrPort{at}, Probe: HTTP{}}, time.Minute)
			if err == nil || !strings.Contains(err.Error(), "read response") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A checker with real sockets: the server goes away and comes back.
func TestCheckerWithServer(t *testing.T) {
	var sick atomic.Bool
	at := serve(t, "127.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(500)
		}
	}))
	c := New(slog.New(slog.DiscardHandler), nil)
	c.SetChecks([]Check{
		{ID: "http", Targets: []netip.AddrPort{at}, Probe: HTTP{}, Interval: 10 * time.Millisecond, Timeout: time.Minute, Rise: 2, Fall: 2},
		{ID: "tcp", Targets: []netip.AddrPort{at}, Interval: 10 * time.Millisecond, Timeout: time.Minute, Rise: 2, Fall: 2},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	await := func(what string, http State) {
		t.Helper()
		limit := time.After(30 * time.Second) // bounds a failing test only
		for {
			got := c.Results()
			if got["http"].State == http && got["tcp"].State == Up {
				return
			}
			select {
			case <-c.Changes():
			case <-limit:
				t.Fatalf("%s: still %+v", what, got)
			}
		}
	}
	await("healthy", Up)
	sick.Store(true)
	await("sick", Down)
	if got := c.Results()["http"].LastError; got != "status 500, want 200-399" {
		t.Errorf("LastError: got %q", got)
	}
	sick.Store(false)
	await("healthy again", Up)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func ExampleCodes() {
	fmt.Println(list([]Codes{{200, 204}, {301, 301}}))
	// Output: 200-204 or 301
}
