package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weir/controlplane/health"
	"weir/dataplane/packet"
)

// vips asks for each VIP as a client's packets do.
func (e *examination) vips(ctx context.Context) []Diagnosis {
	s := &e.subject
	if s.Mode == NAT {
		return nil
	}
	if e.steering == nil {
		return []Diagnosis{skipped(VIP, "VIPs cannot be asked for on single backends here; weir's log says why")}
	}
	var all []Diagnosis
	before, _ := e.stats()
	for _, vip := range s.VIPs {
		if slices.Contains(e.astray, vip.Addr().Unmap()) {
			all = append(all, skipped(VIP+" "+vip.Addr().String(), "its packets would go astray"))
			continue
		}
		d := e.vip(ctx, netip.AddrPortFrom(vip.Addr().Unmap(), vip.Port()))
		all = append(all, d)
		if d.Status == Fail {
			break
		}
	}
	return append(all, e.losses(before)...)
}

// vip examines one VIP. The probes' packets are good for the backend alone: one
// that passes them on has to say so.
func (e *examination) vip(ctx context.Context, vip netip.AddrPort) Diagnosis {
	s := &e.subject
	root := Diagnosis{Check: VIP + " " + vip.Addr().String(), Status: OK}
	var tcp result
	if vip.Port() != 0 {
		tcp = e.tcp(ctx, e.near, vip, s.Way)
		switch tcp.outcome {
		case answered:
			root.Text = fmt.Sprintf("%s accepts connections by the way of traffic", vip)
			root.add(ok(VIP, "%s", root.Text))
			return root
		case refused:
			root.add(ok(VIP, "%s is on the backend: it answered with a reset", vip.Addr()),
				fail(Port, fmt.Sprintf("%s refuses connections: the backend has the VIP, but nothing listens there", vip),
					fmt.Sprintf("let the server listen on the VIP or on all addresses; on the backend: ss -ltn 'sport = :%d'", vip.Port())))
			return root
		}
		if d, found := e.explain(ctx, vip, &tcp); found {
			root.add(d...)
			return root
		}
	}
	ping := e.ping(ctx, e.near, vip.Addr(), s.Way)
	switch {
	case ping.outcome == answered && vip.Port() == 0:
		root.Text = fmt.Sprintf("%s answers pings by the way of traffic", vip.Addr())
		root.add(ok(VIP, "%s", root.Text))
		return root
	case ping.outcome == answered:
		silence := fail
		if s.Healthy {
			silence = warn
		}
		root.add(ok(VIP, "%s is on the backend: it answers pings", vip.Addr()),
			silence(Port, fmt.Sprintf("%s is silent while the VIP answers pings: a firewall drops TCP, or the accept queue is full", vip),
				fmt.Sprintf("on the backend: nft list ruleset; ss -ltn 'sport = :%d'; nstat -az TcpExtListenOverflows", vip.Port())))
		return root
	}
	if d, found := e.explain(ctx, vip, &ping); found {
		root.add(d...)
		return root
	}
	root.add(e.nothing(ctx, vip)...)
	return root
}

// explain looks for the reason of a failure in what was seen of it.
func (e *examination) explain(ctx context.Context, vip netip.AddrPort, r *result) ([]Diagnosis, bool) {
	s, a := &e.subject, vip.Addr()
	if r.outcome == unable {
		return []Diagnosis{skipped(VIP, "cannot be asked for: %v", r.err)}, true
	}
	if other := r.find(func(p *seen) bool { return p.isAnswer() && p.from != a }); other != nil {
		return []Diagnosis{fail(Source,
			fmt.Sprintf("answers come from %s instead of the VIP %s: something on the backend rewrites the source (SNAT, masquerade)", other.from, a),
			fmt.Sprintf("on the backend: nft list ruleset; iptables -t nat -S; take packets from %s out of SNAT and MASQUERADE", a))}, true
	}
	if r.has(func(p *seen) bool { return p.isAnswer() && p.from == a }) {
		return e.dropped(a), true
	}
	if by := r.find((*seen).isForeignProtocol); by != nil && s.Mode == IPIP {
		return []Diagnosis{fail(Tunnel,
			fmt.Sprintf("%s does not decapsulate: it takes no packets of protocol %d (%s)", by.from, by.about.proto, e.combination(a)),
			e.decapsulate(a))}, true
	}
	if by := r.find((*seen).isPassedOn); by != nil {
		return e.passedOn(ctx, vip, by), true
	}
	if by := r.find((*seen).isProhibited); by != nil {
		return []Diagnosis{fail(Port, fmt.Sprintf("%s rejects packets for %s by an ICMP error (type %d code %d): a firewall", by.from, vip, by.icmpType, by.icmpCode),
			"allow them on the backend: nft list ruleset; iptables -S")}, true
	}
	if by := r.find(func(p *seen) bool { return p.kind == problem && p.mtu == 0 && !p.tunnelled() }); by != nil {
		return []Diagnosis{e.missing(a, fmt.Sprintf("%s says that %s cannot be reached (ICMP type %d code %d)", by.from, a, by.icmpType, by.icmpCode))}, true
	}
	return nil, false
}

// dropped is for answers that came, while the socket that waited for them got
// nothing.
func (e *examination) dropped(vip netip.Addr) []Diagnosis {
	if problem := e.steering.Filtered(e.subject.Way, vip); problem != "" {
		_, fix, _ := strings.Cut(problem, "; ")
		return []Diagnosis{fail(Filter, "the answers arrive, but "+problem, fix)}
	}
	return []Diagnosis{fail(Filter, fmt.Sprintf("answers from %s arrive at this box, but its kernel does not take them: a firewall here, or rp_filter", vip),
		"on this box: nft list ruleset; nstat -az TcpExtIPReversePathFilter; sysctl -a -r rp_filter")}
}

// passedOn is for a backend that routes packets for the VIP. Somebody behind it may
// answer all the same: a container that it forwards them to, or, by way of weir,
// another backend.
func (e *examination) passedOn(ctx context.Context, vip netip.AddrPort, by *seen) []Diagnosis {
	what := fmt.Sprintf("%s does not accept packets for %s but forwards them (%s)", by.from, vip.Addr(), by.name())
	fix := e.addVIP(vip.Addr())
	if vip.Port() != 0 && by.kind == problem {
		if again := e.tcp(ctx, e.full, vip, e.subject.Way); again.outcome == answered {
			return []Diagnosis{warn(VIP, what+"; somebody behind it answers: a container (DNAT), which is fine, or another backend by way of weir, which is not", fix)}
		}
	}
	return []Diagnosis{fail(VIP, what+": the VIP is not on the backend, and ip_forward is on", fix)}
}

func (e *examination) missing(vip netip.Addr, evidence string) Diagnosis {
	return fail(VIP, fmt.Sprintf("the VIP is not on the backend: %s", evidence), e.addVIP(vip))
}

// addVIP is how a backend gets a VIP that it keeps quiet about.
func (e *examination) addVIP(vip netip.Addr) string {
	if vip.Is6() {
		return fmt.Sprintf("on the backend: ip addr add %s/128 dev lo", vip)
	}
	return fmt.Sprintf("on the backend: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; ip addr add %s/32 dev lo", vip)
}

// nothing is for a VIP that stays silent, with no word from anybody.
func (e *examination) nothing(ctx context.Context, vip netip.AddrPort) []Diagnosis {
	s, a := &e.subject, vip.Addr()
	if s.Healthy {
		return []Diagnosis{warn(VIP, fmt.Sprintf("%s is silent to TCP and pings, but its health check passes: it serves datagrams only, or a firewall lets nothing else through", a),
			fmt.Sprintf("nothing, if that is meant; on the backend: nft list ruleset; ip addr show to %s", a))}
	}
	if !e.alive {
		return []Diagnosis{fail(VIP, fmt.Sprintf("%s answers nothing at all, neither at its own address nor at %s: it hangs, or a firewall drops everything", s.Backend, a),
			fmt.Sprintf("ping %s; look at its console; nft list ruleset", s.Backend))}
	}
	if s.Mode != IPIP {
		return []Diagnosis{e.missing(a, fmt.Sprintf("it answers neither TCP nor pings at %s, while it does at %s", a, s.Backend))}
	}
	// A packet for the backend's own address needs no VIP, only decapsulation.
	own := e.ping(ctx, e.full, s.Backend, s.Way)
	switch {
	case own.outcome == answered:
		return []Diagnosis{
			ok(Tunnel, "%s decapsulates: a ping of its own address came back through the tunnel", s.Backend),
			e.missing(a, "it is silent in the same tunnel"),
		}
	case own.has((*seen).isForeignProtocol):
		return []Diagnosis{
			ok(Tunnel, "%s decapsulates packets for %s and no others, as weir decap does", s.Backend, a),
			e.missing(a, "what is decapsulated is not answered"),
		}
	}
	device, _ := e.deviceOf(a)
	return []Diagnosis{fail(Tunnel,
		fmt.Sprintf("%s is silent in the tunnel: either rp_filter of the tunnel's device drops the packets, or the VIP %s is missing. On the backend, nstat -az TcpExtIPReversePathFilter goes up with each packet if it is rp_filter; ip addr show dev lo tells whether the VIP is there", s.Backend, a),
		fmt.Sprintf("1. on the backend: sysctl -w net.ipv4.conf.%s.rp_filter=0 net.ipv4.conf.all.rp_filter=0\n2. %s", device, e.addVIP(a)))}
}

// decapsulate is how a backend gets the tunnel's other end.
func (e *examination) decapsulate(vip netip.Addr) string {
	device, module := e.deviceOf(vip)
	return fmt.Sprintf("on the backend: weir decap --interface NIC --vip %s\nor: modprobe %s; ip link set %s up; sysctl -w net.ipv4.conf.%s.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
		vip, module, device, device)
}

// deviceOf returns the kernel's own device and module for the tunnel.
func (e *examination) deviceOf(vip netip.Addr) (device, module string) {
	switch {
	case e.subject.Backend.Is6():
		return "ip6tnl0", "ip6_tunnel"
	case vip.Is6():
		return "sit0", "sit"
	}
	return "tunl0", "ipip"
}

func (e *examination) combination(vip netip.Addr) string {
	version := func(a netip.Addr) string {
		if a.Is6() {
			return "IPv6"
		}
		return "IPv4"
	}
	return version(vip) + " in " + version(e.subject.Backend)
}

// isAnswer tells whether a packet answers a probe, whoever it says it is from.
func (s *seen) isAnswer() bool {
	return s.kind == reply || s.kind == segment && s.flag&(packet.TCPSyn|packet.TCPRst) != 0
}

// isForeignProtocol: protocol unreachable (RFC 792), unrecognized next header (RFC
// 4443 section 3.4), about a packet in a tunnel.
func (s *seen) isForeignProtocol() bool {
	return s.tunnelled() && s.is(packet.ICMPv4Unreachable, 2, packet.ICMPv6ParamProblem, 1)
}

// isPassedOn: a redirect, or a packet that lived for one hop has died behind it.
func (s *seen) isPassedOn() bool {
	return s.kind == redirect || !s.tunnelled() && s.is(packet.ICMPv4TimeExceeded, 0, packet.ICMPv6TimeExceeded, 0)
}

// isProhibited: what firewalls say.
func (s *seen) isProhibited() bool {
	for _, code := range []uint8{3, 9, 10, 13} { // of IPv4: port unreachable, and the prohibitions of RFC 1812 section 5.2.7.1
		if s.is(packet.ICMPv4Unreachable, code, packet.ICMPv6Unreachable, 1) {
			return true
		}
	}
	return s.from.Is6() && s.is(0, 0, packet.ICMPv6Unreachable, 4)
}

func (s *seen) name() string {
	if s.kind == redirect {
		return "ICMP redirect"
	}
	return "ICMP time exceeded"
}

var _ health.Steering = (*tap)(nil)
