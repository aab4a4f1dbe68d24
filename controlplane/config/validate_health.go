package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// check is one of the kinds of health checks.
type check struct {
	key   string
	port  *uint16 // nil: it has none
	proto Proto   // of Port, if it has one by default
}

// kinds returns the checks that h has; one is right.
func (h *Health) kinds() []check {
	var all []check
	if h.TCP != nil {
		all = append(all, check{"tcp", &h.TCP.Port, TCP})
	}
	if h.HTTP != nil {
		all = append(all, check{"http", &h.HTTP.Port, TCP})
	}
	if h.ICMP != nil {
		all = append(all, check{"icmp", nil, 0})
	}
	if h.UDP != nil {
		all = append(all, check{"udp", &h.UDP.Port, UDP})
	}
	if h.DNS != nil {
		all = append(all, check{"dns", &h.DNS.Port, h.DNS.proto()})
	}
	if h.GRPC != nil {
		all = append(all, check{"grpc", &h.GRPC.Port, TCP})
	}
	return all
}

func (v *validator) health(s *Service, path string) {
	path += ".health"
	h := s.Health
	if h == nil || v.broken[path] {
		return
	}
	kinds := h.kinds()
	switch {
	case len(kinds) > 1:
		var names []string
		for _, k := range kinds {
			names = append(names, k.key)
		}
		v.errorf(path, "has %s; keep one of them", strings.Join(names, " and "))
	case len(kinds) == 1:
		v.checkPort(s, kinds[0], path)
	case !slices.ContainsFunc([]string{"tcp", "http", "icmp", "udp", "dns", "grpc"}, func(key string) bool { return v.pos.has(join(path, key)) }):
		v.errorf(path, "has no check; want one of tcp: {}, http: {path: /healthz}, icmp: {}, udp: {send: ping}, dns: {name: example.com}, grpc: {}")
	}
	if h.HTTP != nil {
		if len(h.HTTP.Codes) == 0 {
			v.absent(path+".http", "codes", wantCodes)
		}
		if h.HTTP.Method == "HEAD" && h.HTTP.Body != "" {
			v.errorf(path+".http.body", "is never there with method HEAD; remove it, or set method to GET")
		}
		v.tls(h.HTTP.TLS, path+".http.tls")
		v.tlsName(h, h.HTTP.TLS, path+".http", "server_name or host")
	}
	if h.UDP != nil {
		v.udp(h.UDP, path+".udp")
	}
	if h.DNS != nil {
		v.dns(h.DNS, path+".dns")
	}
	if h.GRPC != nil {
		v.tls(h.GRPC.TLS, path+".grpc.tls")
		v.tlsName(h, h.GRPC.TLS, path+".grpc", "server_name")
	}
	if s.Mode == ModeNAT && h.Address == CheckVIP {
		v.errorf(path+".check_address", "is vip, which a backend in mode nat does not have; remove it, or set it to backend")
	}
	if h.Timeout > h.Interval && !v.broken[path+".interval"] {
		v.errorf(path+".timeout", "%s is longer than the interval of %s; want at most that", short(h.Timeout), short(h.Interval))
	}
}

// checkPort reports a check that has a port, but not where from.
func (v *validator) checkPort(s *Service, k check, path string) {
	at := join(path, k.key)
	ports := strings.TrimSuffix(path, "health") + "ports"
	known := !v.broken[at] && !v.broken[at+".port"] && len(s.Ports) > 0 && !v.broken[ports] && !slices.Contains(s.Ports, Port{})
	if k.port != nil && *k.port == 0 && known {
		v.absent(at, "port", fmt.Sprintf("the port to check, as the service names no port of %s that could be taken", k.proto))
	}
}

func (v *validator) tls(t *TLS, path string) {
	if t == nil || v.broken[path] {
		return
	}
	if v.pos.has(path+".ca") && !t.Verify {
		v.errorf(path+".ca", "has no use with verify false; remove one of them")
	}
	pair := [2]string{"certificate", "key"}
	for i, key := range pair {
		other := pair[1-i]
		if v.pos.has(join(path, key)) && !v.known(join(path, other)) {
			v.absent(path, other, "the path of a PEM file, as there is a "+key)
		}
	}
}

// tlsName warns of a certificate that has to be for an IP address, unless that is
// what server_name says. names are the keys that can give it a name.
func (v *validator) tlsName(h *Health, t *TLS, path, names string) {
	if t == nil || !t.Verify || h.Address == "" || v.brokenIn(path) || v.pos.has(path+".tls.server_name") {
		return
	}
	of := t.ServerName // from host
	if _, err := netip.ParseAddr(of); of != "" && err != nil {
		return
	}
	switch {
	case of != "":
	case h.Address == CheckVIP:
		of = "the VIP"
	default:
		of = "its own"
	}
	v.warnf(path+".tls", "the backend's certificate has to be for an IP address (%s), as few are; want %s with a name that it is for, or verify: false", of, names)
}

func (v *validator) udp(u *UDPCheck, path string) {
	if v.broken[path] {
		return
	}
	for _, key := range []string{".send", ".expect"} {
		if other := path + key + "_hex"; v.pos.has(path+key) && v.pos.has(other) {
			v.errorf(other, "is given next to %s in line %d; keep one of them", key[1:], v.pos.line(path+key))
		}
	}
	if len(u.Send) == 0 && !v.known(path+".send_hex") {
		v.absent(path, "send", wantSend+", or send_hex with bytes; servers that know no empty packet do not answer to one")
	}
}

func (v *validator) dns(q *DNSCheck, path string) {
	if v.broken[path] {
		return
	}
	if q.Name == "" {
		v.absent(path, "name", wantDomain)
	}
	if len(q.Codes) == 0 {
		v.absent(path, "codes", "at least one, as [NOERROR]")
	}
	for i, data := range q.Expect {
		at := fmt.Sprintf("%s.expect[%d]", path, i)
		a, err := netip.ParseAddr(data)
		if err != nil {
			continue // of another record in the same answer, as a CNAME
		}
		switch {
		case q.Type == "A" && !a.Is4():
			v.errorf(at, "%s is not an IPv4 address, which is what records of type A have; want that, or type AAAA", quote(data))
		case q.Type == "AAAA" && (a.Is4() || a.Zone() != ""):
			v.errorf(at, "%s is not an IPv6 address, which is what records of type AAAA have; want that, or type A", quote(data))
		}
	}
}
