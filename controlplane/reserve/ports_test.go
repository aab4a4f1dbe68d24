package reserve

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// naive is a set of ports that is right by being simple.
type naive map[int]bool

// naiveText is what the kernel would write.
func (n naive) String() string {
	var parts []string
	for port := 0; port < 65536; port++ {
		if !n[port] {
			continue
		}
		last := port
		for n[last+1] {
			last++
		}
		if last == port {
			parts = append(parts, fmt.Sprint(port))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", port, last))
		}
		port = last
	}
	return strings.Join(parts, ",")
}

func TestPortSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() (portSet, naive) {
		var s portSet
		n := make(naive)
		for range rng.IntN(5) {
			lo := rng.IntN(65536)
			hi := min(65535, lo+rng.IntN(1<<rng.IntN(17)))
			s.add(Range{uint16(lo), uint16(hi)})
			for port := lo; port <= hi; port++ {
				n[port] = true
			}
		}
		return s, n
	}
	for range 100 {
		a, an := random()
		b, bn := random()
		with, without := make(naive), make(naive)
		for port := range an {
			with[port] = true
			if !bn[port] {
				without[port] = true
			}
		}
		for port := range bn {
			with[port] = true
		}
		sum, rest := a.with(&b), a.without(&b)
		for _, pair := range []struct {
			got  *portSet
			want naive
		}{{&a, an}, {&sum, with}, {&rest, without}} {
			if pair.got.String() != pair.want.String() {
				t.Fatalf("%s, want %s", pair.got, pair.want)
			}
			for port := range 65536 {
				if pair.got.has(uint16(port)) != pair.want[port] {
					t.Fatalf("port %d of %s", port, pair.got)
				}
			}
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{"", "\n", "22\n", "50000-59999", "0-65535", "8080,9148,50000-59999\n", "1,1-2,2", "65536", "2-1", "-", ",", "1,,2", "0x10", "+1", " 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parsePorts(text)
		if err != nil {
			if set != (portSet{}) {
				t.Errorf("%s in spite of %v", &set, err)
			}
			return
		}
		again, err := parsePorts(set.String())
		if err != nil || again != set {
			t.Errorf("%q is %s, and that is %s, %v", text, &set, &again, err)
		}
		if strings.Trim(text, "0123456789,-\n") != "" {
			t.Errorf("%q was accepted", text)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"reserved_ports":"50000-59999","boot":"a","cookie":1}`))
	f.Add([]byte(`{"reserved_ports":"","boot":"a"}`))
	f.Add([]byte(`{"reserved_ports":"70000"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ports, of, err := parseRecord(b)
		if err != nil {
			return
		}
		r := record{path: filepath.Join(t.TempDir(), "record"), of: of}
		if err := r.write(&ports); err != nil {
			t.Fatal(err)
		}
		if again, err := r.read(); err != nil || again != ports {
			t.Errorf("wrote %s, read %s, %v", &ports, &again, err)
		}
	})
}

func FuzzReadSockets(f *testing.F) {
	f.Add("   0: 0100007F:C350 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1\n")
	f.Add("   0: 00000000000000000000000001000000:C351 00000000000000000000000000000000:0000 07\n")
	f.Fuzz(func(t *testing.T, text string) {
		var all, some portSet
		all.add(Range{0, 65535})
		some.add(Range{50000, 50009})
		every, err := readSockets(strings.NewReader(text), "udp", &all)
		found, errSome := readSockets(strings.NewReader(text), "udp", &some)
		if (err == nil) != (errSome == nil) {
			t.Errorf("%v and %v", err, errSome)
		}
		n := 0
		for _, s := range every {
			if some.has(s.Local.Port()) {
				n++
			}
		}
		if n != len(found) {
			t.Errorf("found %v of %v", found, every)
		}
	})
}
