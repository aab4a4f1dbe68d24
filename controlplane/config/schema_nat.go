package config

import (
	"fmt"
	"net/netip"
)

func (d *decoder) nat(n node, c *Config) {
	shared := &c.NAT.Shared
	d.mapping(n, fields{
		"addresses": func(n node) { d.snat(n, "", c) },
		"nodes": func(n node) {
			d.dict(n, "NODE: ADDRESSES pairs, as {lb1: [10.0.0.240/31], lb2: [10.0.0.242/31]}", parseNode, func(name string, n node) {
				d.snat(n, name, c)
			})
		},
		"ports": func(n node) { value(d, n, &c.NAT.Ports, wantPorts, parsePorts) },
		"shared": func(n node) {
			d.mapping(n, fields{
				"addresses": func(n node) {
					list(d, n, &shared.Addresses, func(n node, a *netip.Addr) { value(d, n, a, wantAddress, parseAddress) })
				},
				"ports": func(n node) { value(d, n, &shared.Ports, wantPorts, parsePorts) },
			})
		},
	})
}

// snat decodes the SNAT addresses of a node; those of no name are of this one.
func (d *decoder) snat(n node, name string, c *Config) {
	var spans []span
	list(d, n, &spans, func(n node, s *span) { value(d, n, s, wantSpan, parseSpan) })
	for i := range spans {
		spans[i].node, spans[i].path = name, fmt.Sprintf("%s[%d]", n.path, i)
	}
	if len(spans) == 0 && name != "" && !d.broken[n.path] {
		d.errorf(n.path, "is empty; want at least one, as [10.0.0.240/31]")
	}
	c.snat = append(c.snat, spans...)
}
