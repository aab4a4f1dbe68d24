package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzParse: no panic; errors are sorted, one line each and tell a line of the
// file; what is accepted is accepted again, and is what the types promise.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("!%0d")) // a tag with a carriage return made an error of two lines
	f.Fuzz(func(t *testing.T, data []byte) {
		c, warnings, err := Parse("f", data, nil)
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) || len(errs) == 0 || c != nil {
				t.Fatalf("config %v, error %T: %v", c, err, err)
			}
			plausible(t, data, errs)
			return
		}
		plausible(t, data, Errors(warnings))
		promised(t, c)
		again := &report{pos: c.pos}
		validate(c, again)
		if len(again.errors) > 0 || len(again.warnings) != len(warnings) {
			t.Fatalf("not accepted again: %v, warnings %v, were %v", again.errors, again.warnings, warnings)
		}
		Parse("f", data, &Host{}) // must not panic either
		if err := c.WithAddresses(nil).CheckAddresses(nil); err != nil {
			t.Fatalf("not accepted without addresses: %v", err)
		}
	})
}

func plausible(t *testing.T, data []byte, errs Errors) {
	t.Helper()
	// YAML also ends lines with CR, NEL, LS and PS.
	lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + strings.Count(string(data), "\u0085") +
		strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029") + 2
	utf16 := strings.HasPrefix(string(data), "\xff\xfe") || strings.HasPrefix(string(data), "\xfe\xff")
	for i, e := range errs {
		if strings.ContainsAny(e.Error(), "\n\r") {
			t.Fatalf("more than one line: %q", e.Error())
		}
		if e.Line < 0 || e.Line > lines && !utf16 {
			t.Fatalf("line %d of %d: %v", e.Line, lines, e)
		}
		if i > 0 && e.Line < errs[i-1].Line {
			t.Fatalf("not sorted: %v", errs)
		}
	}
}

// promised checks what the documentation of the types says, by itself.
func promised(t *testing.T, c *Config) {
	t.Helper()
	if c.Node == "" || len(c.Interfaces) == 0 || c.Flows.Entries < 1024 || c.Log.Level == "" || c.API.Socket == "" {
		t.Fatalf("%+v", c)
	}
	for _, nic := range c.Interfaces {
		if nic.Name == "" || nic.Driver == "" || nic.XDPMode == "" || nic.Queues < 0 {
			t.Fatalf("%+v", nic)
		}
	}
	for _, s := range c.Services {
		if s.Name == "" || (len(s.Addresses) == 0) != s.Allocated() || s.Allocated() && s.Announce != nil || len(s.Ports) == 0 || len(s.Backends) == 0 || s.TableSize <= len(s.Backends) {
			t.Fatalf("%+v", s)
		}
		if s.Mode != ModeDSR && s.Mode != ModeIPIP && s.Mode != ModeNAT || s.Affinity != AffinityFlow && s.Affinity != AffinitySource {
			t.Fatalf("%+v", s)
		}
		for _, p := range s.Ports {
			if again, problem := parsePort(p.String()); problem != "" || again != p {
				t.Fatalf("port %v became %v: %s", p, again, problem)
			}
		}
		for _, vip := range s.Addresses {
			served := false
			for _, b := range s.Backends {
				served = served || mixes(s) || b.Address.Is4() == vip.Is4()
			}
			if !served || !vip.IsValid() || vip.Is4In6() || vip.Zone() != "" || !vip.IsGlobalUnicast() {
				t.Fatalf("VIP %v of %+v", vip, s)
			}
		}
		for _, b := range s.Backends {
			of := func(vip netip.Addr) bool { return vip.Is4() == b.Address.Is4() }
			if !mixes(s) && !slices.ContainsFunc(s.Addresses, of) && !slices.Contains(s.Families, FamilyOf(b.Address)) {
				t.Fatalf("no VIP for %v of %+v", b, s)
			}
			for _, p := range []netip.Prefix{c.IPIP.SourcePrefix, c.IPIP.SourcePrefix6} {
				if p.Contains(b.Address) || slices.ContainsFunc(s.Addresses, p.Contains) {
					t.Fatalf("%v has addresses of %+v", p, s)
				}
			}
			if !b.Address.IsGlobalUnicast() || b.State == "" || b.VLAN > 4094 {
				t.Fatalf("%+v", b)
			}
		}
		policies(t, s)
		checks(t, s)
	}
	pooled(t, c)
	speakers(t, c)
	translations(t, c)
}

func checks(t *testing.T, s Service) {
	t.Helper()
	h := s.Health
	for _, b := range s.Backends {
		if s.Checked(&b) != (h != nil) || (b.CheckPort == 0) != (h == nil || h.ICMP != nil) {
			t.Fatalf("%+v is checked by %+v", b, h)
		}
	}
	if h == nil {
		return
	}
	if h.Timeout <= 0 || h.Timeout > h.Interval || h.Rise < 1 || h.Fall < 1 || h.Address != CheckBackend && (h.Address != CheckVIP || s.Mode == ModeNAT) {
		t.Fatalf("%+v", h)
	}
	kinds, port := 0, uint16(0)
	var encryption *TLS
	if h.TCP != nil {
		kinds, port = kinds+1, h.TCP.Port
	}
	if h.HTTP != nil {
		kinds, port, encryption = kinds+1, h.HTTP.Port, h.HTTP.TLS
		if _, err := regexp.Compile(h.HTTP.Body); err != nil || len(h.HTTP.Codes) == 0 || h.HTTP.Path == "" || h.HTTP.Method == "" {
			t.Fatalf("%+v", h.HTTP)
		}
	}
	if h.ICMP != nil {
		kinds, port = kinds+1, 1
	}
	if h.UDP != nil {
		kinds, port = kinds+1, h.UDP.Port
		if _, err := regexp.Compile(h.UDP.Expect); err != nil || len(h.UDP.Send) == 0 || len(h.UDP.Send) > 1232 || h.UDP.Expect != "" && h.UDP.ExpectBytes != nil {
			t.Fatalf("%+v", h.UDP)
		}
	}
	if h.DNS != nil {
		kinds, port = kinds+1, h.DNS.Port
		if h.DNS.Name == "" || h.DNS.Type == "" || h.DNS.Transport == "" || len(h.DNS.Codes) == 0 {
			t.Fatalf("%+v", h.DNS)
		}
	}
	if h.GRPC != nil {
		kinds, port, encryption = kinds+1, h.GRPC.Port, h.GRPC.TLS
	}
	if kinds != 1 || port == 0 || encryption != nil && ((encryption.Certificate == "") != (encryption.Key == "") || encryption.MinVersion == "") {
		t.Fatalf("%+v", h)
	}
}

// pooled checks that pools have addresses of their own, and that services can get
// some.
func pooled(t *testing.T, c *Config) {
	t.Helper()
	var all []Range
	for _, p := range c.Pools {
		if p.Name == "" || len(p.Ranges) == 0 || !p.offers(IPv4) && !p.offers(IPv6) {
			t.Fatalf("%+v", p)
		}
		for _, r := range p.Ranges {
			if !r.From.IsGlobalUnicast() || !r.To.IsGlobalUnicast() || r.To.Less(r.From) || slices.ContainsFunc(all, r.overlaps) {
				t.Fatalf("%v in %+v", r, c.Pools)
			}
			all = append(all, r)
		}
		if slices.Contains(p.Announce, AnnounceBGP) && c.BGP == nil {
			t.Fatalf("%+v without BGP", p)
		}
	}
	taken := slices.Concat(c.NAT.Addresses, c.NAT.Shared.Addresses)
	for _, s := range c.Services {
		for _, b := range s.Backends {
			taken = append(taken, b.Address)
		}
		for _, f := range s.Families {
			if !slices.ContainsFunc(c.Pools, func(p Pool) bool {
				return p.offers(f) && (p.Name == s.Pool || s.Pool == "" && p.selects(s.Labels))
			}) {
				t.Fatalf("no %s for %+v", f, s)
			}
		}
	}
	for _, a := range taken {
		if p := c.PoolOf(a); p != nil && !p.avoids(a) {
			t.Fatalf("%v is in %+v", a, p)
		}
	}
}

func speakers(t *testing.T, c *Config) {
	t.Helper()
	if k := c.Cluster; k != nil && (len(k.Peers) == 0 || len(k.Key) != 16 && len(k.Key) != 24 && len(k.Key) != 32 || k.Bind.Port() == 0) {
		t.Fatalf("%+v", k)
	}
	if c.BGP == nil {
		return
	}
	if c.BGP.ASN == 0 || len(c.BGP.Peers) == 0 {
		t.Fatalf("%+v", c.BGP)
	}
	for _, p := range c.BGP.Peers {
		if p.Name == "" || !p.Address.IsValid() || p.ASN == 0 || p.Port == 0 || len(p.Families) == 0 || p.ConnectRetry <= 0 || len(p.Password) > 80 {
			t.Fatalf("%+v", p)
		}
		if p.HoldTime < 3*time.Second || p.KeepaliveTime < time.Second || p.KeepaliveTime >= p.HoldTime {
			t.Fatalf("%+v", p)
		}
		for _, f := range p.Families {
			hop, all := p.NextHop, c.BGP.NextHop
			if f == IPv6 {
				hop, all = p.NextHop6, c.BGP.NextHop6
			}
			if f != FamilyOf(p.Address) && !hop.IsValid() && !all.IsValid() {
				t.Fatalf("no next hop of %s for %+v", f, p)
			}
		}
	}
}

// mixes says whether backends of either family can serve VIPs of either.
func mixes(s Service) bool {
	return s.Mode == ModeIPIP || s.Mode == ModeNAT && s.ClientAddress == ClientSNAT
}

func policies(t *testing.T, s Service) {
	t.Helper()
	l := s.Limits
	for _, n := range []int{l.NewFlows, l.Packets, l.PerSource.NewFlows, l.PerSource.Packets} {
		if n < 0 || n > 1e9 {
			t.Fatalf("%+v", l)
		}
	}
	for _, p := range [][2]int{{s.AffinityPrefix, s.AffinityPrefix6}, {l.PerSource.Prefix, l.PerSource.Prefix6}} {
		if p[0] < 1 || p[0] > 32 || p[1] < 1 || p[1] > 128 {
			t.Fatalf("%+v", s)
		}
	}
	if s.Ping == "" || s.Reject == "" || s.ClientAddress == "" || s.SlowStart != 0 && (s.SlowStart < time.Second || s.SlowStart > time.Hour) {
		t.Fatalf("%+v", s)
	}
	seen := make(map[netip.Prefix]bool)
	for _, p := range slices.Concat(s.ACL.Allow, s.ACL.Deny) {
		if !p.IsValid() || p.Masked() != p || p.Addr().Is4In6() || seen[p] {
			t.Fatalf("%v in %+v", p, s.ACL)
		}
		seen[p] = true
	}
	for _, b := range s.Backends {
		if b.Port != 0 && s.Mode != ModeNAT || b.MTU != 0 && (b.MTU < 576 || b.MTU > 65535) {
			t.Fatalf("%+v", b)
		}
	}
}

func translations(t *testing.T, c *Config) {
	t.Helper()
	if c.NAT.Ports.Lo < 1024 || c.NAT.Ports.Lo > c.NAT.Ports.Hi || c.Flows.NewRate < 0 || c.PathMTU == "" {
		t.Fatalf("%+v", c)
	}
	shared := c.NAT.Shared
	if len(shared.Addresses) == 0 && shared.Ports != (PortRange{}) || len(shared.Addresses) > 0 && (shared.Ports.Lo < 1024 || shared.Ports.Lo > shared.Ports.Hi) {
		t.Fatalf("%+v", shared)
	}
	all := slices.Concat(c.NAT.Addresses, shared.Addresses)
	snat := make(map[netip.Addr]bool)
	for _, a := range all {
		if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" || snat[a] || len(all) > 4096 {
			t.Fatalf("%v in %d of %v", a, len(all), c.NAT)
		}
		snat[a] = true
	}
	for _, s := range c.Services {
		for _, vip := range s.Addresses {
			if snat[vip] {
				t.Fatalf("VIP %v in %v", vip, c.NAT)
			}
		}
		for _, b := range s.Backends {
			of := func(a netip.Addr) bool { return a.Is4() == b.Address.Is4() }
			if snat[b.Address] || s.Mode == ModeNAT && s.ClientAddress == ClientSNAT && !slices.ContainsFunc(all, of) {
				t.Fatalf("backend %v and %v", b.Address, c.NAT)
			}
		}
	}
}
