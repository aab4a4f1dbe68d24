package config

import "net/netip"

func (d *decoder) service(n node, s *Service) {
	*s = Service{
		Mode: ModeDSR, ClientAddress: ClientSNAT, TableSize: 65537,
		Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
		Ping: PingAlways, Reject: RejectDrop, MinBackends: 1,
		Limits: Limits{PerSource: SourceLimits{Prefix: 32, Prefix6: 64}},
	}
	d.mapping(n, fields{
		"name": func(n node) { value(d, n, &s.Name, "a name", parseServiceName) },
		"addresses": func(n node) {
			list(d, n, &s.Addresses, func(n node, a *netip.Addr) { value(d, n, a, wantAddress, parseVIP) })
		},
		"pool":         func(n node) { value(d, n, &s.Pool, "the name of a pool", parsePoolName) },
		"ip_families":  func(n node) { words(d, n, &s.Families, IPv4, IPv6) },
		"labels":       func(n node) { d.labels(n, &s.Labels) },
		"share":        func(n node) { value(d, n, &s.Share, "a key", parseShare) },
		"announce":     func(n node) { words(d, n, &s.Announce, AnnounceL2, AnnounceBGP) },
		"min_backends": func(n node) { number(d, n, &s.MinBackends, 0, maxMinimum) },
		"ports": func(n node) {
			list(d, n, &s.Ports, func(n node, p *Port) { value(d, n, p, wantPort, parsePort) })
		},
		"mode":             func(n node) { word(d, n, &s.Mode, ModeDSR, ModeIPIP, ModeNAT) },
		"client_address":   func(n node) { word(d, n, &s.ClientAddress, ClientSNAT, ClientKeep) },
		"affinity":         func(n node) { word(d, n, &s.Affinity, AffinityFlow, AffinitySource) },
		"affinity_prefix":  func(n node) { number(d, n, &s.AffinityPrefix, 1, 32) },
		"affinity_prefix6": func(n node) { number(d, n, &s.AffinityPrefix6, 1, 128) },
		"ping":             func(n node) { word(d, n, &s.Ping, PingAlways, PingHealthy, PingNever) },
		"reject":           func(n node) { word(d, n, &s.Reject, RejectDrop, RejectICMP, RejectRST) },
		"slow_start":       func(n node) { value(d, n, &s.SlowStart, "a duration", parseSlowStart) },
		"limits":           func(n node) { d.limits(n, &s.Limits) },
		"acl":              func(n node) { d.acl(n, &s.ACL) },
		"table_size":       func(n node) { number(d, n, &s.TableSize, 2, maxTable) },
		"health":           func(n node) { s.Health = d.health(n) },
		"backends":         func(n node) { list(d, n, &s.Backends, d.backend) },
	})
}

func (d *decoder) limits(n node, l *Limits) {
	d.mapping(n, fields{
		"new_flows": func(n node) { number(d, n, &l.NewFlows, 0, maxRate) },
		"packets":   func(n node) { number(d, n, &l.Packets, 0, maxRate) },
		"per_source": func(n node) {
			d.mapping(n, fields{
				"prefix":    func(n node) { number(d, n, &l.PerSource.Prefix, 1, 32) },
				"prefix6":   func(n node) { number(d, n, &l.PerSource.Prefix6, 1, 128) },
				"new_flows": func(n node) { number(d, n, &l.PerSource.NewFlows, 0, maxRate) },
				"packets":   func(n node) { number(d, n, &l.PerSource.Packets, 0, maxRate) },
			})
		},
	})
}

func (d *decoder) acl(n node, a *ACL) {
	clients := func(n node, p *netip.Prefix) { value(d, n, p, wantClients, parseClients) }
	d.mapping(n, fields{
		"allow": func(n node) { list(d, n, &a.Allow, clients) },
		"deny":  func(n node) { list(d, n, &a.Deny, clients) },
	})
}

func (d *decoder) backend(n node, b *Backend) {
	*b = Backend{Weight: 100, State: Active}
	d.mapping(n, fields{
		"address": func(n node) { value(d, n, &b.Address, wantAddress, parseBackend) },
		"weight":  func(n node) { number(d, n, &b.Weight, 0, maxWeight) },
		"state":   func(n node) { word(d, n, &b.State, Active, Draining, Disabled) },
		"vlan":    func(n node) { number(d, n, &b.VLAN, 1, 4094) },
		"port":    func(n node) { number(d, n, &b.Port, 1, 65535) },
		"mtu":     func(n node) { number(d, n, &b.MTU, minMTU, maxMTU) },
	})
}
