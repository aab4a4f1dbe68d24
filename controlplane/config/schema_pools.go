package config

func (d *decoder) pool(n node, p *Pool) {
	*p = Pool{Announce: []Announce{AnnounceL2}, AutoAssign: true, BGP: PoolBGP{Aggregation: 32, Aggregation6: 128}}
	d.mapping(n, fields{
		"name":            func(n node) { value(d, n, &p.Name, "a name", parsePoolName) },
		"addresses":       func(n node) { list(d, n, &p.Ranges, d.poolRange) },
		"announce":        func(n node) { words(d, n, &p.Announce, AnnounceL2, AnnounceBGP) },
		"auto_assign":     func(n node) { d.flag(n, &p.AutoAssign) },
		"avoid_buggy_ips": func(n node) { d.flag(n, &p.AvoidBuggyIPs) },
		"priority":        func(n node) { number(d, n, &p.Priority, 0, maxPrio) },
		"services":        func(n node) { d.labels(n, &p.Selector) },
		"l2": func(n node) {
			d.mapping(n, fields{
				"interfaces": func(n node) {
					list(d, n, &p.L2.Interfaces, func(n node, to *string) { value(d, n, to, "the name of an interface", parseInterface) })
				},
				"all_active": func(n node) { d.flag(n, &p.L2.AllActive) },
			})
		},
		"bgp": func(n node) { d.poolBGP(n, &p.BGP) },
	})
}

func (d *decoder) poolRange(n node, r *Range) {
	var s span
	value(d, n, &s, wantSpan, parseSpan)
	*r = Range{s.lo, s.hi}
}

func (d *decoder) poolBGP(n node, b *PoolBGP) {
	d.mapping(n, fields{
		"communities":  func(n node) { d.communities(n, &b.Communities) },
		"local_pref":   func(n node) { optional(d, n, &b.LocalPref) },
		"med":          func(n node) { optional(d, n, &b.MED) },
		"aggregation":  func(n node) { number(d, n, &b.Aggregation, 1, 32) },
		"aggregation6": func(n node) { number(d, n, &b.Aggregation6, 1, 128) },
		"peers": func(n node) {
			list(d, n, &b.Peers, func(n node, to *string) { value(d, n, to, "the name of a peer", parsePeerName) })
		},
	})
}

func (d *decoder) communities(n node, to *[]string) {
	list(d, n, to, func(n node, c *string) { value(d, n, c, wantCommunity, parseCommunity) })
}

// labels decodes the labels of a service, or those that a pool asks for.
func (d *decoder) labels(n node, to *map[string]string) {
	*to = make(map[string]string)
	d.dict(n, "LABEL: VALUE pairs, as {tier: gold}", parseLabel, func(key string, n node) {
		var v string
		value(d, n, &v, "the value of a label", parseLabelValue)
		(*to)[key] = v
	})
}
