package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommunity(t *testing.T) {
	for text, want := range map[string]string{
		"65000:100": "65000:100", "0:0": "0:0", "65535:65535": "65535:65535",
		"65000:1:2": "65000:1:2", "4294967295:0:4294967295": "4294967295:0:4294967295",
		"no-export": "65535:65281", "no-advertise": "65535:65282", "no-peer": "65535:65284",
		"blackhole": "65535:666", "graceful-shutdown": "65535:0", "accept-own": "65535:1",
		"": "", "1": "", "1:2:3:4": "", "65536:1": "", "1:65536": "", "1:2:4294967296": "", "-1:2": "", "+1:2": "", "01:2": "",
		"1:": "", ":1": "", "a:b": "", "NO-EXPORT": "", "1: 2": "", "1::2": "", "99999999999999999999:1": "",
	} {
		got, problem := parseCommunity(text)
		if got != want || (problem == "") != (want != "") {
			t.Errorf("%q is %q, want %q; %s", text, got, want, problem)
		}
	}
	// The numbers of RFC 1997, RFC 3765, RFC 7999, RFC 8326 and RFC 7611, as these have them.
	for name, number := range map[string]uint32{
		"no-export": 0xFFFFFF01, "no-advertise": 0xFFFFFF02, "no-peer": 0xFFFFFF04,
		"blackhole": 0xFFFF029A, "graceful-shutdown": 0xFFFF0000, "accept-own": 0xFFFF0001,
	} {
		if got, want := wellKnown(name), fmt.Sprintf("%d:%d", number>>16, number&0xffff); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// FuzzCommunity: what is accepted is numbers that fit, and stays as it is.
func FuzzCommunity(f *testing.F) {
	for _, seed := range []string{"65000:1", "1:2:3", "no-export", "::", "1:-2", "65536:0", "0x1:2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, problem := parseCommunity(text)
		if (problem == "") != (got != "") || strings.ContainsAny(problem, "\n\r") {
			t.Fatalf("%q: %q and %q", text, got, problem)
		}
		if problem != "" {
			return
		}
		parts := strings.Split(got, ":")
		for _, part := range parts {
			if _, err := strconv.ParseUint(part, 10, 16*(len(parts)-1)); err != nil || len(parts) > 3 {
				t.Fatalf("%q: %q", text, got)
			}
		}
		if again, problem := parseCommunity(got); again != got || problem != "" {
			t.Fatalf("%q: %q became %q, %q", text, got, again, problem)
		}
	})
}

func TestEndpoints(t *testing.T) {
	port := func(text string, n uint16) string {
		a, _ := netip.ParseAddr(text)
		return netip.AddrPortFrom(a, n).String()
	}
	for text, want := range map[string][3]string{ // bind, advertise, peer; empty if it cannot be
		"10.0.0.2":            {"10.0.0.2:7946", "10.0.0.2:7946", "10.0.0.2:7946"},
		"10.0.0.2:99":         {"10.0.0.2:99", "10.0.0.2:99", "10.0.0.2:99"},
		"2001:db8::2":         {"[2001:db8::2]:7946", "[2001:db8::2]:7946", "[2001:db8::2]:7946"},
		"[2001:db8::2]:99":    {"[2001:db8::2]:99", "[2001:db8::2]:99", "[2001:db8::2]:99"},
		":99":                 {port("", 99), "", ""},
		"0.0.0.0":             {port("", 7946), "", ""},
		"[::]:99":             {port("", 99), "", ""},
		"lb2":                 {"", "", "lb2:7946"},
		"lb2.example.com:99":  {"", "", "lb2.example.com:99"},
		":0":                  {},
		":x":                  {},
		"10.0.0.2:0":          {},
		"10.0.0.2:99999":      {},
		"10.0.0.256":          {},
		"fe80::1%eth0":        {},
		"::ffff:10.0.0.1":     {},
		"224.0.0.1":           {},
		"lb2:":                {},
		"lb2.":                {},
		"lb2:99:1":            {},
		"":                    {},
		"[lb2]:99":            {},
		"http://10.0.0.2:99/": {},
	} {
		b, bad := parseBind(text)
		a, bad2 := parseAdvertise(text)
		m, bad3 := parseMember(text)
		got := [3]string{b.String(), a.String(), m}
		for i, problem := range []string{bad, bad2, bad3} {
			if (problem == "") != (want[i] != "") {
				t.Errorf("%q: %d: %q", text, i, problem)
			}
			if problem != "" {
				got[i] = ""
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": -1, "0": -1, "3s": 3 * time.Second, "65535s": 65535 * time.Second,
		"1s": -1, "2999ms": -1, "3500ms": -1, "65536s": -1, "90": -1, "-3s": -1, "": -1,
	} {
		got, problem := parseHold(text)
		if (problem == "") != (want >= 0) || problem == "" && got != want {
			t.Errorf("hold_time %q: %v, %q; want %v", text, got, problem, want)
		}
	}
	for hold, want := range map[string]time.Duration{"3s": time.Second, "10s": 3 * time.Second, "90s": 30 * time.Second} {
		c, _, err := Parse("test.yaml", []byte("interfaces: [{name: eth1}]\nbgp: {asn: 1, peers: [{address: 10.0.0.1, asn: 2, hold_time: "+hold+"}]}\n"), nil)
		if err != nil {
			t.Errorf("hold_time %s: %v", hold, err)
		} else if got := c.BGP.Peers[0].KeepaliveTime; got != want {
			t.Errorf("hold_time %s: keepalive_time %v, want %v", hold, got, want)
		}
	}
}

func TestStateDir(t *testing.T) {
	long := "/" + strings.Repeat("a/", (maxFolder-2)/2) + "b" // maxFolder bytes
	for text, want := range map[string]string{
		"":                                    "/var/lib/weir",
		"api: {metrics: ':9'}":                "/var/lib/weir",
		"api: {socket: /run/weir/weir.sock}":  "/var/lib/weir",
		"api: {socket: /run/weir2/weir.sock}": "/run/weir2",
		"state_dir: /srv//weir/":              "/srv/weir",
		"state_dir: /srv/../weir":             "/weir",
		"state_dir: " + long[:len(long)-1]:    long[:len(long)-2],
		"state_dir: " + long:                  long,

		"api: {socket: /run/weir2/weir.sock}\nstate_dir: /srv/weir": "/srv/weir",
		"api: {socket: /weir.sock}\nstate_dir: /srv/weir":           "/srv/weir",
		"api: {socket: /weir.sock}":                                 "test.yaml:1: state_dir: is missing; want the path of a folder, as /var/lib/weir; without the key it is the one of api.socket, and that is /",
		"state_dir: /":                                              `test.yaml:2: state_dir: "/" is no folder for files of weir; want one of its own, as /var/lib/weir`,
		"state_dir: //srv/../.":                                     `test.yaml:2: state_dir: "//srv/../." is no folder for files of weir; want one of its own, as /var/lib/weir`,
		"state_dir: lib/weir":                                       `test.yaml:2: state_dir: "lib/weir" is not an absolute path; want one, as /var/lib/weir`,
		"state_dir: ./weir":                                         `test.yaml:2: state_dir: "./weir" is not an absolute path; want one, as /var/lib/weir`,
		"state_dir: ''":                                             `test.yaml:2: state_dir: "" is not an absolute path; want one, as /var/lib/weir`,
		`state_dir: "/var/lib\nweir"`:                               `test.yaml:2: state_dir: "/var/lib\nweir" is not an absolute path; want one, as /var/lib/weir`,
		"state_dir: [/var/lib/weir]":                                "test.yaml:2: state_dir: is a list; want the path of a folder",
		"state_dir: " + long + "b":                                  "test.yaml:2: state_dir: " + quote(long) + " is 4001 bytes long; want at most 4000",
	} {
		c, _, err := Parse("test.yaml", []byte("interfaces: [{name: eth1}]\n"+text), nil)
		if err != nil {
			if err.Error() != want {
				t.Errorf("%.100s: %v, want %s", text, err, want)
			}
		} else if c.StateDir != want {
			t.Errorf("%.100s: %q, want %q", text, c.StateDir, want)
		}
	}
}

// files writes files of these contents, and returns the directory.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// problem returns what the only mistake in a file is.
func problem(t *testing.T, text string) string {
	t.Helper()
	_, _, err := Parse("test.yaml", []byte(text), nil)
	if err == nil {
		return ""
	}
	errs, _ := err.(Errors)
	if len(errs) != 1 {
		t.Fatalf("%d mistakes: %v", len(errs), err)
	}
	return errs[0].Path + ": " + errs[0].Problem
}

// TestSecrets: files with secrets are read, and never quoted.
func TestSecrets(t *testing.T) {
	const key = "MDEyMzQ1Njc4OWFiY2RlZg=="
	dir := files(t, map[string]string{
		"password": "top secret\n", "crlf": "top secret\r\n", "empty": "\n", "lines": "top\nsecret\n", "long": strings.Repeat("x", 81),
		"key": key + "\n", "bare": key, "short": "c2VjcmV0\n", "text": "top secret\n", "large": strings.Repeat("x", maxSecret+1),
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"password": "", "crlf": "",
		"empty": "the password in %s is 0 bytes long; want 1 to 80, on one line",
		"lines": "the password in %s is 10 bytes long; want 1 to 80, on one line",
		"long":  "the password in %s is 81 bytes long; want 1 to 80, on one line",
		"none":  "%s cannot be read: no such file or directory",
		"pipe":  "%s is not a file",
		".":     "%s is not a file",
		"large": "%s is larger than 1024 KiB; that cannot be it",
	} {
		file := dir + "/" + name
		text := "interfaces: [{name: eth1}]\nbgp: {asn: 1, peers: [{address: 10.0.0.1, asn: 2, password_file: " + file + "}]}\n"
		if want != "" {
			want = "bgp.peers[0].password_file: " + fmt.Sprintf(want, quote(file))
		}
		if got := problem(t, text); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		} else if want == "" {
			if c, _, _ := Parse("", []byte(text), nil); c.BGP.Peers[0].Password != "top secret" {
				t.Errorf("%s: the password is %q", name, c.BGP.Peers[0].Password)
			}
		}
	}
	for name, want := range map[string]string{
		"key": "", "bare": "",
		"empty": "what is in %s is 0 bytes in base64; want " + wantKey,
		"short": "what is in %s is 6 bytes in base64; want " + wantKey,
		"text":  "what is in %s is not base64; want " + wantKey,
		"none":  "%s cannot be read: no such file or directory",
	} {
		file := dir + "/" + name
		text := "interfaces: [{name: eth1}]\ncluster: {peers: [lb2], key_file: " + file + "}\n"
		if want != "" {
			want = "cluster.key_file: " + fmt.Sprintf(want, quote(file))
		}
		if got := problem(t, text); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		} else if want == "" {
			if c, _, _ := Parse("", []byte(text), nil); string(c.Cluster.Key) != "0123456789abcdef" {
				t.Errorf("%s: the key is %q", name, c.Cluster.Key)
			}
		}
	}
}

// certificate returns a self-signed one and its key, in PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// TestTLS: the files of a check are there, can be parsed and belong together.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	_, other := certificate(t)
	dir := files(t, map[string]string{"cert": cert, "key": key, "other": other, "text": "top secret\n"})
	for _, tc := range []struct{ tls, want string }{
		{"{}", ""},
		{"{ca: DIR/cert}", ""},
		{"{ca: DIR/cert, certificate: DIR/cert, key: DIR/key, min_version: 1.3, server_name: 10.0.0.1}", ""},
		{"{ca: DIR/text}", `.ca: "DIR/text" has no certificate; want PEM, that begins with -----BEGIN CERTIFICATE-----`},
		{"{ca: DIR/none}", `.ca: "DIR/none" cannot be read: no such file or directory`},
		{"{certificate: DIR/cert, key: DIR/other}", `.certificate: "DIR/cert" and the key "DIR/other" cannot be used: tls: private key does not match public key`},
		{"{certificate: DIR/text, key: DIR/key}", `.certificate: "DIR/text" and the key "DIR/key" cannot be used: tls: failed to find any PEM data in certificate input`},
		{"{certificate: DIR/cert, key: DIR/none}", `.key: "DIR/none" cannot be read: no such file or directory`},
		{"{certificate: DIR/cert}", `.key: is missing; want the path of a PEM file, as there is a certificate`},
	} {
		for _, kind := range []string{"http", "grpc"} {
			want := tc.want
			if want != "" {
				want = "services[0].health." + kind + ".tls" + regexp.MustCompile(`"DIR/\w+"`).ReplaceAllStringFunc(want, func(path string) string {
					return quote(dir + strings.Trim(path, `"`)[len("DIR"):])
				})
			}
			got := problem(t, `
interfaces: [{name: eth1}]
services:
  - name: web
    addresses: [192.0.2.1]
    ports: [tcp/443]
    health: {`+kind+`: {tls: `+strings.ReplaceAll(tc.tls, "DIR", dir)+`}}
    backends: [{address: 10.0.0.1}]
`)
			if got != want {
				t.Errorf("%s: %q, want %q", tc.tls, got, want)
			}
		}
	}
}

// TestServerName: what a certificate must be for is the Host, unless it is told. Who
// has neither is warned, as in testdata/tls.yaml.
func TestServerName(t *testing.T) {
	for http, want := range map[string]string{
		"{tls: {verify: false}}":                           "",
		"{host: a.example, tls: {}}":                       "a.example",
		"{host: 'a.example:8443', tls: {}}":                "a.example",
		"{host: '[2001:db8::1]', tls: {verify: false}}":    "2001:db8::1",
		"{host: a.example, tls: {server_name: b.example}}": "b.example",
	} {
		c := parse(t, `
interfaces: [{name: eth1}]
services:
  - {name: web, addresses: [192.0.2.1], ports: [tcp/443], health: {http: `+http+`}, backends: [{address: 10.0.0.1}]}
`)
		if got := c.Services[0].Health.HTTP.TLS.ServerName; got != want {
			t.Errorf("%s: %q, want %q", http, got, want)
		}
	}
}
