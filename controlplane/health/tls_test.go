package health

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// authority is a CA of a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{certificate: certificate, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(certificate)
	return a
}

// issue returns a certificate for names and addresses.
func (a *authority) issue(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]},
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// files writes PEM files and returns their names.
func files(t *testing.T, c tls.Certificate) (certificate, key string) {
	t.Helper()
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	write(t, c, certificate, key)
	return certificate, key
}

func write(t *testing.T, c tls.Certificate, certificate, key string) {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certificate, "CERTIFICATE", c.Certificate[0])
	writePEM(t, key, "PRIVATE KEY", raw)
}

func writePEM(t *testing.T, name, kind string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) file(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, name, "CERTIFICATE", a.certificate.Raw)
	return name
}

// serveTLS answers with the server name that it was asked for and the name in
// the client's certificate.
func serveTLS(t *testing.T, addr string, config *tls.Config) netip.AddrPort {
	t.Helper()
	l, at := listen(t, addr)
	server := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "name="+r.TLS.ServerName+" host="+r.Host+" client=")
			for _, c := range r.TLS.PeerCertificates {
				_, _ = io.WriteString(w, c.Subject.CommonName)
			}
		}),
	}
	go func() { _ = server.Serve(tls.NewListener(l, config)) }()
	t.Cleanup(func() { _ = server.Close() })
	return at
}

func TestHTTPSProbe(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	clientFile, clientKey := files(t, ca.issue(t, "weir"))
	caFile, strangerFile := ca.file(t), stranger.file(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "www.example.org", "127.0.0.1", "::1")},
		ClientCAs:    ca.pool, ClientAuth: tls.VerifyClientCertIfGiven, MaxVersion: tls.VersionTLS12,
	}
	strict := config.Clone()
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	tests := []struct {
		name   string
		probe  HTTP
		strict bool
		want   string
		unable bool
	}{
		{"by address", HTTP{Body: "^name= ", TLS: &TLS{Verify: true, CA: caFile}}, false, "", false},
		{"by host", HTTP{Host: "www.example.org", Body: "^name=www.example.org host=www.example.org ", TLS: &TLS{Verify: true, CA: caFile}}, false, "", false},
		{"by host with a port", HTTP{Host: "www.example.org:8443", Body: "^name=www.example.org host=www.example.org:8443 ", TLS: &TLS{Verify: true, CA: caFile}}, false, "", false},
		{"by name", HTTP{Host: "other.example.org", Body: "^name=www.example.org host=other", TLS: &TLS{ServerName: "www.example.org", Verify: true, CA: caFile}}, false, "", false},
		{"other name", HTTP{TLS: &TLS{ServerName: "other.example.org", Verify: true, CA: caFile}}, false, "certificate is valid for www.example.org", false},
		{"other name, not verified", HTTP{Body: "^name=other.example.org", TLS: &TLS{ServerName: "other.example.org"}}, false, "", false},
		{"other CA", HTTP{TLS: &TLS{Verify: true, CA: strangerFile}}, false, "TLS handshake: tls: failed to verify certificate", false},
		{"the system's CAs", HTTP{TLS: &TLS{Verify: true}}, false, "TLS handshake: tls: failed to verify certificate", false},
		{"not verified", HTTP{TLS: &TLS{}}, false, "", false},
		{"body", HTTP{Body: "never", TLS: &TLS{}}, false, `client=" does not match "never"`, false},
		{"client certificate", HTTP{Body: "client=weir$", TLS: &TLS{Verify: true, CA: caFile, Certificate: clientFile, Key: clientKey}}, true, "", false},
		{"no client certificate", HTTP{TLS: &TLS{Verify: true, CA: caFile}}, true, "TLS handshake: remote error: tls:", false},
		{"version", HTTP{TLS: &TLS{MinVersion: "1.3"}}, false, "protocol version", false},
		{"unknown version", HTTP{TLS: &TLS{MinVersion: "3"}}, false, `unknown TLS version "3"`, true},
		{"no CA file", HTTP{TLS: &TLS{Verify: true, CA: "/nonexistent/ca.pem"}}, false, "read CA certificates: open /nonexistent/ca.pem: no such file", true},
		{"empty CA file", HTTP{TLS: &TLS{Verify: true, CA: empty}}, false, "no PEM certificate in " + empty, true},
		{"no key", HTTP{TLS: &TLS{Certificate: clientFile}}, false, "a client certificate needs a certificate file and a key file", true},
		{"not the key", HTTP{TLS: &TLS{Certificate: clientFile, Key: caFile}}, false, "read client certificate: tls:", true},
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		at := map[bool]netip.AddrPort{false: serveTLS(t, addr, config), true: serveTLS(t, addr, strict)}
		for _, tt := range tests {
			t.Run(addr+" "+tt.name, func(t *testing.T) {
				err := try(t, Check{Targets: []netip.AddrPort{at[tt.strict]}, Probe: tt.probe}, time.Minute)
				expect(t, err, tt.want)
				if err != nil && ours(err) != tt.unable {
					t.Errorf("%v: could not be made: %v, want %v", err, ours(err), tt.unable)
				}
			})
		}
	}
}

// expect wants an error with a text in it, or none for "".
func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got %v, want success", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want %q", err, want)
	}
}

// A server that speaks no TLS, and one that says nothing.
func TestHTTPSProbeOfWhatIsNotTLS(t *testing.T) {
	plain := serve(t, "127.0.0.1", http.NotFoundHandler())
	expect(t, try(t, Check{Targets: []netip.AddrPort{plain}, Probe: HTTP{TLS: &TLS{}}}, time.Minute), "TLS handshake: tls: first record does not look like a TLS handshake")
	_, silent := listen(t, "127.0.0.1")
	expect(t, try(t, Check{Targets: []netip.AddrPort{silent}, Probe: HTTP{TLS: &TLS{}}}, 100*time.Millisecond), "no answer within 100ms")
}

// Files are read again when they change, at most once a second, and shared.
func TestCredentialsFollowFiles(t *testing.T) {
	ca := newAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		certificate, key := files(t, ca.issue(t, "before"))
		all := credentials{known: map[TLS]*credential{}}
		spec := TLS{Certificate: certificate, Key: key}
		named := spec
		named.ServerName = "a"
		c, other := all.client(spec, "b"), all.client(named, "b", "h2")
		expectName := func(want string) {
			t.Helper()
			got, err := c.config()
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(got.Certificates[0].Certificate[0])
			if err != nil || leaf.Subject.CommonName != want {
				t.Errorf("certificate: got %v, %v, want %s", leaf.Subject, err, want)
			}
		}
		expectName("before")
		first, _ := c.config()
		second, _ := other.config()
		if len(all.known) != 1 || &first.Certificates[0] != &second.Certificates[0] {
			t.Error("two clients with the same files do not share them")
		}
		if first.ServerName != "b" || second.ServerName != "a" || len(second.NextProtos) != 1 {
			t.Errorf("names %q and %q", first.ServerName, second.ServerName)
		}

		renewed := ca.issue(t, "renewed")
		write(t, renewed, certificate, key)
		if err := os.Chtimes(certificate, time.Time{}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		expectName("before") // not looked at yet
		time.Sleep(recheck)
		expectName("renewed")

		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(recheck)
		if _, err := c.config(); !ours(err) || !strings.Contains(err.Error(), key) {
			t.Errorf("without its key: got %v", err)
		}
		write(t, renewed, certificate, key)
		time.Sleep(recheck)
		expectName("renewed")
	})
}

func TestCredentialsAreForgotten(t *testing.T) {
	c := New(discard, nil)
	known := func() int { return len(c.shared.credentials.known) }
	https := Check{ID: "a", Targets: targets("10.0.0.1:443"), Probe: HTTP{TLS: &TLS{CA: "a", ServerName: "x"}}}
	grpc := Check{ID: "b", Targets: targets("10.0.0.1:443"), Probe: GRPC{TLS: &TLS{CA: "b"}}}
	same := https
	same.ID, same.Probe = "c", HTTP{TLS: &TLS{CA: "a", ServerName: "y"}}
	for _, step := range []struct {
		checks []Check
		want   int
	}{{[]Check{https, grpc, same}, 2}, {[]Check{same}, 1}, {[]Check{grpc}, 1}, {nil, 0}} {
		if c.SetChecks(step.checks); known() != step.want {
			t.Errorf("%d checks: %d files known, want %d", len(step.checks), known(), step.want)
		}
	}
}
