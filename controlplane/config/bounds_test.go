package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, _, err := Load(t.TempDir(), nil); err == nil || errors.As(err, new(Errors)) {
		t.Errorf("directory: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(large, nil); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("large file: %v", err)
	}
}

// TestAliasBomb has a list of 2000 backends, 4 values each, in 2000 services.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("interfaces: [{name: eth1}]\nservices:\n- backends: &b\n")
	for range 2000 {
		b.WriteString("  - &x {address: 10.0.0.1, weight: 1, vlan: 1}\n")
	}
	b.WriteString(strings.Repeat("- {backends: *b}\n", 2000))
	_, _, err := Parse("bomb.yaml", []byte(b.String()), nil)
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 1 || !strings.Contains(errs[0].Problem, "at most 1048576") {
		t.Fatalf("%d errors: %.500v", len(errs), err)
	}
}

func TestTooManyPairs(t *testing.T) {
	var b strings.Builder
	b.WriteString("interfaces: [{name: eth1}]\nservices:\n- name: a\n  backends: [{address: 10.0.0.1}]\n  addresses:\n")
	for i := range 1025 {
		fmt.Fprintf(&b, "  - 192.0.%d.%d\n", i>>8, i&255)
	}
	b.WriteString("  ports:\n")
	for i := range 1025 {
		fmt.Fprintf(&b, "  - tcp/%d\n", i+1)
	}
	_, _, err := Parse("many.yaml", []byte(b.String()), nil)
	const want = "many.yaml:3: services[0]: the services up to here have more than 1048576 pairs of address and port; want ranges of ports, or fewer services"
	if err == nil || err.Error() != want {
		t.Errorf("got %.500v\nwant %s", err, want)
	}
}

// TestExampleIsComplete holds docs/example.yaml against the keys of the schema.
func TestExampleIsComplete(t *testing.T) {
	files, err := filepath.Glob("schema*.go")
	if err != nil {
		t.Fatal(err)
	}
	var schema []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		schema = append(schema, text...)
	}
	example, err := os.ReadFile("../../docs/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ = bytes.Cut(example, []byte("\nnode:")) // without the comment at the top
	known := regexp.MustCompile(`"([a-z0-9_]+)": +(func|age|d\.)`).FindAllSubmatch(schema, -1)
	if len(known) < 130 {
		t.Fatalf("found %d keys only, the expression is out of date", len(known))
	}
	for _, m := range known {
		if string(m[1]) != "node" && !regexp.MustCompile(`\b`+string(m[1])+`:`).Match(example) {
			t.Errorf("no %s in docs/example.yaml", m[1])
		}
	}
}

// TestExampleSetUps: what the comment at the top of docs/example.yaml shows is
// complete, and there is nothing to warn of.
func TestExampleSetUps(t *testing.T) {
	example, err := os.ReadFile("../../docs/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	top, _, _ := strings.Cut(string(example), "\nnode:")
	var texts []string
	in := false
	for line := range strings.Lines(top) {
		text, indented := strings.CutPrefix(line, "#     ")
		if !indented {
			in = false
			continue
		}
		if in = in || strings.HasPrefix(text, "interfaces:"); !in {
			continue
		}
		if strings.HasPrefix(text, "interfaces:") {
			texts = append(texts, "")
		}
		texts[len(texts)-1] += text
	}
	if len(texts) != 2 {
		t.Fatalf("there are %d: %q", len(texts), texts)
	}
	two, routed := parse(t, texts[0]), parse(t, texts[1])
	if two.Cluster == nil || two.BGP != nil || routed.Cluster == nil || routed.BGP == nil || !routed.Services[0].Allocated() {
		t.Errorf("they are %+v and %+v", two, routed)
	}
}

// TestOverlapOracle compares with looking at all pairs of claims: there is a
// report if and only if two overlap, and what is reported overlaps.
func TestOverlapOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 3000 {
		c := &Config{}
		for range 1 + random.IntN(4) {
			s := Service{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(2))})}}
			for range 1 + random.IntN(2) {
				lo := uint16(1 + random.IntN(60))
				proto := TCP
				if random.IntN(2) == 0 {
					proto = UDP
				}
				s.Ports = append(s.Ports, Port{proto, lo, lo + uint16(random.IntN(20))})
			}
			c.Services = append(c.Services, s)
		}
		within, between := map[string]bool{}, map[string]bool{}
		for i, a := range c.Services {
			for j, p := range a.Ports {
				for k, b := range c.Services[:i+1] {
					for l, q := range b.Ports {
						if p.Proto != q.Proto || p.Lo > q.Hi || q.Lo > p.Hi || a.Addresses[0] != b.Addresses[0] {
							continue
						}
						at := fmt.Sprintf("services[%d].ports[%d]", i, j)
						if i == k && l < j {
							within[at] = true
						} else if i != k {
							between[at] = true
						}
					}
				}
			}
		}
		v := &validator{report: &report{}, c: c}
		v.overlaps()
		gotWithin, gotBetween := 0, 0
		for _, e := range v.errors {
			if strings.Contains(e.Problem, "same service") {
				gotWithin++
				if !within[e.Path] {
					t.Fatalf("%+v: %v", c.Services, e)
				}
			} else {
				gotBetween++
				if !between[e.Path] {
					t.Fatalf("%+v: %v", c.Services, e)
				}
			}
		}
		if (gotWithin > 0) != (len(within) > 0) || (gotBetween > 0) != (len(between) > 0) {
			t.Fatalf("%+v: got %v, want some of %v and %v", c.Services, v.errors, within, between)
		}
		found += len(within) + len(between)
	}
	if found == 0 {
		t.Error("no case had an overlap")
	}
}

func TestPrimes(t *testing.T) {
	composite := make([]bool, 70000) // the sieve of Eratosthenes
	for n := 2; n < len(composite); n++ {
		for m := n * n; m < len(composite) && !composite[n]; m += n {
			composite[m] = true
		}
		if prime(n) == composite[n] {
			t.Fatalf("prime(%d) = %v", n, prime(n))
		}
	}
	for n, want := range map[int]int{0: 2, 2: 2, 8: 11, 65536: 65537, maxTable: 16777213, maxTable * 9: 16777213} {
		if got := nextPrime(n); got != want {
			t.Errorf("nextPrime(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := fields{"name": nil, "addresses": nil, "ports": nil, "mode": nil, "cpus": nil, "tcp": nil}
	for key, want := range map[string]string{
		"nmae": "name", "Name": "name", "address": "addresses", "adresses": "addresses", "port": "ports",
		"mood": "", "cpu": "cpus", "tpc": "tcp", "vip": "", "": "", "x": "", "backends": "",
	} {
		if got := nearest(key, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", key, got, want)
		}
	}
}

// TestBombs has very many of what services, pools and peers are held against, in
// few bytes. What is too many is said, and the rest does not take for ever.
func TestBombs(t *testing.T) {
	const backends = "backends: [{address: 10.0.0.1}]"
	for _, tc := range []struct{ name, text, path string }{
		{"pools", "pools: [&p {name: p, addresses: [203.0.113.0/24], services: {a: b}}" + strings.Repeat(", *p", 5_000) + "]\n" +
			"services: [&s {ports: [tcp/80], " + backends + "}" + strings.Repeat(", *s", 5_000) + "]\n", "pools"},
		{"ranges", "pools: [{name: p, addresses: [&r 203.0.113.0/24" + strings.Repeat(", *r", 20_000) + "]}]\n" +
			"services: [&s {ports: [tcp/80], " + backends + "}" + strings.Repeat(", *s", 5_000) + "]\n", "pools"},
		{"references", "pools: [{name: p, addresses: [203.0.113.0/24], announce: [bgp], bgp: {peers: [&r r" + strings.Repeat(", *r", 50_000) + "]}}]\n" +
			"bgp: {asn: 1, peers: [&p {address: 10.0.0.1, asn: 2, pools: [&q q" + strings.Repeat(", *q", 50_000) + "]}]}\n", "pools[0].bgp.peers[0]"},
		{"peers", "bgp: {asn: 1, peers: [&p {address: 10.0.0.1, asn: 2}" + strings.Repeat(", *p", 10_000) + "]}\n", "bgp.peers"},
		{"nodes", "nat:\n  nodes:\n" + many(5_000, "    n%d: [127.0.0.1]\n") +
			"services: [&s {ports: [tcp/80], mode: nat, " + backends + "}" + strings.Repeat(", *s", 5_000) + "]\n", "nat.nodes"},
	} {
		_, _, err := Parse("bomb.yaml", []byte("interfaces: [{name: eth1}]\n"+tc.text), &Host{Interfaces: []string{"eth1"}, Addresses: own("203.0.113.1/24")})
		errs, _ := err.(Errors)
		if !slices.ContainsFunc(errs, func(e Error) bool { return e.Path == tc.path }) {
			t.Errorf("%s: %d errors, none at %s: %.300v", tc.name, len(errs), tc.path, err)
		}
	}
}

func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}
