package nginx

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"weir/lab/labtest"
	"weir/lab/netlab"
	"weir/lab/traffic"
)

func newHost(t *testing.T) *netlab.Host {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := netlab.New("nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := lab.Host("web")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestServer asks an nginx all it answers, over IPv4 and IPv6, in the clear and
// over TLS.
func TestServer(t *testing.T) {
	ctx := t.Context()
	h := newHost(t)
	four, six := netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")
	secure := netip.MustParseAddrPort("127.0.0.1:443")
	s, err := Start(ctx, h, Config{Name: "b1", HTTP: []netip.AddrPort{four, six}, HTTPS: []netip.AddrPort{secure}, Names: []string{"web.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	client := &traffic.Client{Dial: h.DialContext, Timeout: 5 * time.Second}
	for _, to := range []netip.AddrPort{four, six} {
		if r := client.Get(ctx, to, "/"); r.Err != nil || r.Backend != "b1" {
			t.Error(r)
		}
		who, err := client.WhoAmI(ctx, to)
		if err != nil || who.Backend != "b1" || who.Client.Addr() != to.Addr() || who.VIP != to {
			t.Errorf("%s: who am i: %+v, %v", to, who, err)
		}
		if r := client.Get(ctx, to, "/absent"); r.Err == nil {
			t.Errorf("%s has what it has not", to)
		}
	}
	for _, healthy := range []bool{true, false, true} {
		if err := s.SetHealthy(healthy); err != nil {
			t.Fatal(err)
		}
		if got := client.Healthy(ctx, six) == nil; got != healthy {
			t.Errorf("healthy is %v, want %v", got, healthy)
		}
	}

	pem, err := os.ReadFile(s.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, name := range []string{"web.example", "127.0.0.1", "other.example"} {
		web := &http.Client{Transport: &http.Transport{
			DialContext: h.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}, DisableKeepAlives: true,
		}}
		answer, err := web.Get("https://127.0.0.1/")
		if (err == nil) != (name != "other.example") {
			t.Errorf("tls for %s: %v", name, err)
		}
		if err == nil {
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if string(body) != "b1\n" {
				t.Errorf("answer over tls is %q", body)
			}
		}
	}

	log, err := s.Requests()
	if err != nil || !strings.Contains(log, "::1 ::1:80 http ") || !strings.Contains(log, "/healthz 503") {
		t.Errorf("access log (%v):\n%s", err, log)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := client.Get(ctx, four, "/"); r.Err == nil {
		t.Error("one that was killed answers")
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if r := client.Get(ctx, four, "/"); r.Err != nil {
		t.Error(r)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Certificate()); !os.IsNotExist(err) {
		t.Errorf("its files are left: %v", err)
	}
}

// TestMistake has it listen where its host is not.
func TestMistake(t *testing.T) {
	h := newHost(t)
	_, err := Start(t.Context(), h, Config{Name: "b1", HTTP: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}})
	if err == nil || !strings.Contains(err.Error(), "Cannot assign requested address") {
		t.Errorf("start returns %v", err)
	}
}
