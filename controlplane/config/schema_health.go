package config

import (
	"go.yaml.in/yaml/v3"
	"time"
)

func (d *decoder) health(n node) *Health {
	h := &Health{Interval: 2 * time.Second, Rise: 2, Fall: 3}
	d.mapping(n, fields{
		"tcp": func(n node) {
			h.TCP = &TCPCheck{}
			d.mapping(n, fields{"port": d.port(&h.TCP.Port)})
		},
		"http": func(n node) { h.HTTP = d.http(n) },
		"icmp": func(n node) {
			h.ICMP = &ICMPCheck{}
			d.mapping(n, fields{})
		},
		"udp":           func(n node) { h.UDP = d.udp(n) },
		"dns":           func(n node) { h.DNS = d.dns(n) },
		"grpc":          func(n node) { h.GRPC = d.grpc(n) },
		"check_address": func(n node) { word(d, n, &h.Address, CheckVIP, CheckBackend) },
		"interval":      func(n node) { value(d, n, &h.Interval, "a duration", parseDuration(minInterval, maxInterval)) },
		"timeout":       func(n node) { value(d, n, &h.Timeout, "a duration", parseDuration(minTimeout, maxInterval)) },
		"rise":          func(n node) { number(d, n, &h.Rise, 1, maxChecks) },
		"fall":          func(n node) { number(d, n, &h.Fall, 1, maxChecks) },
	})
	return h
}

func (d *decoder) http(n node) *HTTPCheck {
	h := &HTTPCheck{Path: "/", Method: "GET", Codes: []Codes{{200, 399}}}
	d.mapping(n, fields{
		"port":   d.port(&h.Port),
		"path":   func(n node) { value(d, n, &h.Path, "a path", parsePath) },
		"host":   func(n node) { value(d, n, &h.Host, "a host", parseHost) },
		"method": func(n node) { word(d, n, &h.Method, "GET", "HEAD", "OPTIONS") },
		"codes": func(n node) {
			one := func(n node, c *Codes) { value(d, n, c, wantCodes, parseCodes) }
			if n.Kind == yaml.ScalarNode {
				one(n, &h.Codes[0])
				return
			}
			list(d, n, &h.Codes, one)
		},
		"body": func(n node) { value(d, n, &h.Body, wantRegexp, parseRegexp) },
		"tls":  func(n node) { h.TLS = d.tls(n) },
	})
	return h
}

// port decodes the port that a check goes to.
func (d *decoder) port(to *uint16) func(node) {
	return func(n node) { number(d, n, to, 1, 65535) }
}

// tls also says what is wrong with the files, as nothing later looks into them.
func (d *decoder) tls(n node) *TLS {
	t := &TLS{Verify: true, MinVersion: "1.2"}
	d.mapping(n, fields{
		"server_name": func(n node) { value(d, n, &t.ServerName, "a host name", parseServerName) },
		"verify":      func(n node) { d.flag(n, &t.Verify) },
		"ca":          func(n node) { value(d, n, &t.CA, "the path of a file", parseCA) },
		"certificate": func(n node) { value(d, n, &t.Certificate, "the path of a file", parseFile) },
		"key":         func(n node) { value(d, n, &t.Key, "the path of a file", parseFile) },
		"min_version": func(n node) { word(d, n, &t.MinVersion, "1.0", "1.1", "1.2", "1.3") },
	})
	if t.Certificate != "" && t.Key != "" {
		if problem := keyPair(t.Certificate, t.Key); problem != "" {
			d.errorf(join(n.path, "certificate"), "%s", problem)
		}
	}
	return t
}

func (d *decoder) udp(n node) *UDPCheck {
	u := &UDPCheck{}
	d.mapping(n, fields{
		"port":       d.port(&u.Port),
		"send":       func(n node) { value(d, n, &u.Send, wantSend, parseSend) },
		"send_hex":   func(n node) { value(d, n, &u.Send, wantHex, parseHex) },
		"expect":     func(n node) { value(d, n, &u.Expect, wantRegexp, parseRegexp) },
		"expect_hex": func(n node) { value(d, n, &u.ExpectBytes, wantHex, parseHex) },
	})
	return u
}

func (d *decoder) dns(n node) *DNSCheck {
	q := &DNSCheck{Type: "A", Transport: "udp", Codes: []string{"NOERROR"}}
	d.mapping(n, fields{
		"port":      d.port(&q.Port),
		"name":      func(n node) { value(d, n, &q.Name, wantDomain, parseDomain) },
		"type":      func(n node) { word(d, n, &q.Type, recordTypes()...) },
		"transport": func(n node) { word(d, n, &q.Transport, "udp", "tcp") },
		"codes": func(n node) {
			words(d, n, &q.Codes, "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
		},
		"expect": func(n node) {
			list(d, n, &q.Expect, func(n node, s *string) { value(d, n, s, "the data of a record", parseData) })
		},
	})
	return q
}

// recordTypes are those that a check can ask for.
func recordTypes() []string {
	return []string{"A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"}
}

func (d *decoder) grpc(n node) *GRPCCheck {
	g := &GRPCCheck{}
	d.mapping(n, fields{
		"port":    d.port(&g.Port),
		"service": func(n node) { value(d, n, &g.Service, "the name of a service", parseGRPCService) },
		"tls":     func(n node) { g.TLS = d.tls(n) },
	})
	return g
}
