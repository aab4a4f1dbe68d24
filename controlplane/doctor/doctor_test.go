package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weir/controlplane/nexthop"
	"weir/controlplane/via"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
)

// fault is something that is wrong, and what the doctor has to make of it.
type fault struct {
	name    string
	make    func(w *world) (undo func())
	subject Subject

	status Status // of the whole
	check  string // that says so
	says   string // part of its text
	fix    string // part of what it advises
	also   string // a check that has to be ok
}

func nothing(*world) func() { return func() {} }

func unserve(vip netip.Addr) func(*world) func() {
	return func(w *world) func() {
		w.must(w.backend.UnserveVIP(vip))
		return func() { w.serve(vip) }
	}
}

func decapsulated(w *world) func() { return w.decapsulate() }

// both makes two faults.
func both(a, b func(*world) func()) func(*world) func() {
	return func(w *world) func() {
		undoA := a(w)
		undoB := b(w)
		return func() { undoB(); undoA() }
	}
}

func setting(key, value, before string) func(*world) func() {
	return func(w *world) func() {
		w.sysctl(w.backend, key, value)
		return func() { w.sysctl(w.backend, key, before) }
	}
}

// forwarding turns the backend into a router, which resets other settings.
func forwarding(w *world) func() {
	w.sysctl(w.backend, "net.ipv4.ip_forward", "1")
	w.sysctl(w.backend, "net.ipv6.conf.all.forwarding", "1")
	return func() {
		w.sysctl(w.backend, "net.ipv4.ip_forward", "0")
		w.sysctl(w.backend, "net.ipv6.conf.all.forwarding", "0")
	}
}

func ipip(backend, vip netip.Addr) Subject {
	s := with(subject(IPIP), only(vip, served))
	s.Backend = backend
	if backend.Is6() {
		s.Way = "6"
	}
	return s
}

func (f *fault) run(t *testing.T, w *world) {
	t.Helper()
	w.t = t
	undo := f.make(w)
	defer undo()
	d := w.examine(f.subject)
	tree := draw(&d, "")
	got, found := d.First(f.status)
	if d.Status != f.status || !found || f.check != "" && got.Check != f.check ||
		!strings.Contains(got.Text, f.says) || !strings.Contains(got.Fix, f.fix) {
		t.Errorf("want %s by check %q, saying %q, fix %q; got\n%s", f.status, f.check, f.says, f.fix, tree)
	}
	if f.also != "" && !has(&d, f.also, OK) {
		t.Errorf("want check %q to be ok; got\n%s", f.also, tree)
	}
}

// draw writes a tree as text.
func draw(d *Diagnosis, indent string) string {
	text := fmt.Sprintf("%s%-7s %s: %s\n", indent, d.Status, d.Check, d.Text)
	if d.Fix != "" {
		text += fmt.Sprintf("%s        fix: %s\n", indent, d.Fix)
	}
	for i := range d.Children {
		text += draw(&d.Children[i], indent+"  ")
	}
	return text
}

func has(d *Diagnosis, check string, s Status) bool {
	if d.Check == check && d.Status == s {
		return true
	}
	for i := range d.Children {
		if has(&d.Children[i], check, s) {
			return true
		}
	}
	return false
}

func TestHere(t *testing.T) {
	w := newWorld(t)
	nowhere := netip.MustParseAddr("10.0.0.99")
	for _, f := range []fault{
		{name: "nothing wrong, dsr", make: nothing, subject: subject(DSR), status: OK},
		{name: "nothing wrong, nat", make: nothing, subject: subject(NAT), status: OK},
		{
			name: "link down", subject: with(subject(DSR), func(s *Subject) { s.Hop.Interface = "eth0" }),
			make: func(w *world) func() {
				w.must(w.box.LinkDown("eth0"))
				return func() { w.must(w.box.LinkUp("eth0")) }
			},
			status: Fail, check: Link, says: "eth0 is down", fix: "ip link set eth0 up",
		},
		{
			name: "no carrier", subject: subject(DSR),
			make: func(w *world) func() {
				port, err := w.net.Port(w.box, "eth0")
				w.must(err)
				set := func(state string) {
					w.must(w.net.Do(func() error { return setLink(port.Name, state == "up") }))
				}
				set("down")
				return func() { set("up"); w.await(func() bool { return w.up() }) }
			},
			status: Fail, check: Link, says: "no carrier", fix: "ethtool eth0",
		},
		{
			name: "no interface", make: nothing, subject: with(subject(DSR), func(s *Subject) { s.Interfaces = []string{"eth7"} }),
			status: Fail, check: Link, says: "eth7", fix: "ip link",
		},
		{
			name: "no route", make: nothing, subject: with(subject(IPIP), func(s *Subject) { s.Backend = netip.MustParseAddr("192.0.2.9") }),
			status: Fail, check: Route, says: "no route to 192.0.2.9", fix: "ip route add",
		},
		{
			name: "of this box", make: nothing, subject: with(subject(DSR), func(s *Subject) { s.Backend = box4.Addr() }),
			status: Fail, check: Route, says: "an address of this box",
		},
		{
			name: "another interface", make: nothing, subject: with(subject(DSR), func(s *Subject) { s.Interfaces = []string{"lo"} }),
			status: Fail, check: Route, says: "leaves by eth0, which is not among weir's interfaces", fix: "add eth0 under interfaces",
		},
		{
			name: "router between", subject: with(subject(DSR), func(s *Subject) { s.Backend = netip.MustParseAddr("10.9.0.1") }),
			make: func(w *world) func() {
				to := netip.MustParsePrefix("10.9.0.0/24")
				w.must(w.box.AddRoute(to, back4))
				return func() { w.must(w.box.DelRoute(to, back4)) }
			},
			status: Fail, check: Route, says: "behind the router 10.0.0.11", fix: "mode: ipip",
		},
		{
			name: "no neighbour", make: nothing, subject: with(subject(DSR), func(s *Subject) { s.Backend = nowhere }),
			status: Fail, check: Neighbour, says: "10.0.0.99 does not answer ARP on eth0", fix: "arping -I eth0 10.0.0.99",
		},
		{
			name: "no neighbour, IPv6", make: nothing, subject: with(subject(DSR), func(s *Subject) { s.Backend = netip.MustParseAddr("fd00::99") }),
			status: Fail, check: Neighbour, says: "does not answer NDP", fix: "ndisc6 fd00::99 eth0",
		},
		{
			name: "not used", make: nothing, subject: with(subject(DSR), func(s *Subject) {
				s.Hop = nexthop.Hop{State: nexthop.Unreachable, Reason: "its MAC is multicast", Interface: "eth0"}
			}),
			status: Warn, check: Neighbour, says: "its MAC is multicast",
		},
		{
			name: "pings ignored", make: setting("net.ipv4.icmp_echo_ignore_all", "1", "0"), subject: subject(DSR),
			status: Warn, check: Ping, says: "no ping", fix: "firewall", also: VIP,
		},
		{
			name: "hangs", make: func(w *world) func() {
				w.ip(w.backend, "route add blackhole 10.0.0.2/32")
				return func() { w.ip(w.backend, "route del blackhole 10.0.0.2/32") }
			},
			subject: with(subject(DSR), only(vip4, served)),
			status:  Fail, check: VIP, says: "answers nothing at all", fix: "ping 10.0.0.11",
		},
		{
			name: "refused, nat", make: nothing, subject: with(subject(NAT), func(s *Subject) { s.Port = closed }),
			status: Fail, check: Port, says: "refuses connections", fix: "ss -ltn 'sport = :81'",
		},
		{
			name: "silent, nat", make: nothing, subject: with(subject(NAT), func(s *Subject) { s.Port = full }),
			status: Fail, check: Port, says: "silent", fix: "TcpExtListenOverflows",
		},
		{
			name: "refused at its own address only", make: nothing, subject: with(subject(DSR), func(s *Subject) { s.Port = closed }),
			status: Warn, check: Port, says: "or only at the VIP", also: VIP,
		},
		{
			name: "clients", make: nothing, subject: with(subject(NAT), func(s *Subject) { s.KeepClient = true }),
			status: Warn, check: Client, says: "client_address: keep", fix: "ip route get CLIENT",
		},
	} {
		t.Run(f.name, func(t *testing.T) { f.run(t, w) })
	}
}

func TestVIP(t *testing.T) {
	w := newWorld(t)
	for _, vip := range []netip.Addr{vip4, vip6} {
		dsr := with(subject(DSR), only(vip, served))
		for _, f := range []fault{
			{
				name: "missing", make: unserve(vip), subject: dsr,
				status: Fail, check: VIP, says: "the VIP is not on the backend", fix: "ip addr add " + netip.PrefixFrom(vip, vip.BitLen()).String() + " dev lo",
			},
			{
				name: "refused", make: nothing, subject: with(subject(DSR), only(vip, closed)),
				status: Fail, check: Port, says: "has the VIP, but nothing listens", fix: "ss -ltn 'sport = :81'", also: VIP,
			},
			{
				name: "queue full", make: nothing, subject: with(subject(DSR), only(vip, full)),
				status: Fail, check: Port, says: "silent while the VIP answers pings", fix: "TcpExtListenOverflows", also: VIP,
			},
			{
				name: "no port", make: nothing, subject: with(subject(DSR), only(vip, 0)), status: OK, also: VIP,
			},
			{
				name: "prohibited", make: both(both(unserve(vip), forwarding), func(w *world) func() {
					w.ip(w.backend, "route add prohibit "+vip.String())
					return func() { w.ip(w.backend, "route del prohibit "+vip.String()) }
				}), subject: dsr,
				status: Fail, check: Port, says: "a firewall", fix: "nft list ruleset",
			},
			{
				name: "unreachable", make: both(both(unserve(vip), forwarding), func(w *world) func() {
					w.ip(w.backend, "route add unreachable "+vip.String())
					return func() { w.ip(w.backend, "route del unreachable "+vip.String()) }
				}), subject: dsr,
				status: Fail, check: VIP, says: "says that " + vip.String() + " cannot be reached", fix: "dev lo",
			},
			// The last: it makes the kernel send redirects, and then fewer errors.
			{
				name: "forwards", make: both(unserve(vip), forwarding), subject: dsr,
				status: Fail, check: VIP, says: "forwards them (ICMP time exceeded): the VIP is not on the backend", fix: "ip addr add " + netip.PrefixFrom(vip, vip.BitLen()).String(),
			},
		} {
			if vip.Is4() && f.name == "unreachable" {
				continue // the kernel sends but one such error in a while (ip_error), and it has just sent one
			}
			t.Run(vip.String()+"/"+f.name, func(t *testing.T) { f.run(t, w) })
		}
	}
	for _, f := range []fault{
		{
			name: "other source", make: both(unserve(vip4), func(w *world) func() { return w.impostor(vip4) }), subject: with(subject(DSR), only(vip4, served)),
			status: Fail, check: Source, says: "answers come from 10.0.0.11 instead of the VIP 10.0.0.200", fix: "MASQUERADE",
		},
		{
			name: "forwards to another", subject: with(subject(DSR), only(vip4, served)),
			make: both(both(unserve(vip4), forwarding), func(w *world) func() {
				to := w.another(vip4)
				w.ip(w.backend, "neigh replace 10.0.0.200 lladdr "+to+" dev eth0 nud permanent")
				return func() { w.ip(w.backend, "neigh delete 10.0.0.200 dev eth0") }
			}),
			status: Warn, check: VIP, says: "somebody behind it answers", fix: "ip addr add 10.0.0.200/32 dev lo",
		},
		{
			name: "rp_filter here", subject: with(subject(DSR), only(vip4, served)),
			make: func(w *world) func() {
				w.ip(w.box, "link add dummy0 type veth peer name dummy1")
				w.ip(w.box, "link set dummy0 up")
				w.ip(w.box, "link set dummy1 up")
				w.ip(w.box, "route add 10.0.0.200/32 dev dummy0")
				w.sysctl(w.box, "net.ipv4.conf.eth0.rp_filter", "1")
				return func() {
					w.sysctl(w.box, "net.ipv4.conf.eth0.rp_filter", "0")
					w.ip(w.box, "link delete dummy0")
				}
			},
			status: Fail, check: Filter, says: "rp_filter of eth0 is strict", fix: "sysctl -w net.ipv4.conf.all.rp_filter=2",
		},
		{
			name: "diverted", subject: with(subject(DSR), only(vip4, served)),
			make: func(w *world) func() {
				w.ip(w.box, "route add default dev eth0 table 100")
				w.ip(w.box, "rule add from 10.0.0.2 lookup 100 priority 0")
				return func() {
					w.ip(w.box, "rule delete from 10.0.0.2 lookup 100 priority 0")
					w.ip(w.box, "route delete default dev eth0 table 100")
				}
			},
			status: Warn, check: Way, says: `packets with mark 0x77650001 from 10.0.0.2 do not leave by weir0`,
			fix: `the rule "0: from 10.0.0.2 lookup 100" comes first; give it a priority of more than 8`,
		},
		{
			name: "silent but healthy", make: unserve(vip4), subject: with(with(subject(DSR), only(vip4, served)), func(s *Subject) { s.Healthy = true }),
			status: Warn, check: VIP, says: "10.0.0.200 is silent to TCP and pings, but its health check passes", also: Way,
		},
		{
			name: "queue full but healthy", make: nothing, subject: with(with(subject(DSR), only(vip4, full)), func(s *Subject) { s.Healthy = true }),
			status: Warn, check: Port, says: "silent while the VIP answers pings", also: VIP,
		},
		{
			name: "datagrams, no pings", subject: with(with(subject(DSR), only(vip4, 0)), func(s *Subject) { s.Healthy, s.Port = true, 0 }),
			make:   setting("net.ipv4.icmp_echo_ignore_all", "1", "0"),
			status: Warn, check: Ping, says: "no ping", also: Way,
		},
		{
			name: "refused though healthy", make: nothing, subject: with(with(subject(DSR), only(vip4, closed)), func(s *Subject) { s.Healthy = true }),
			status: Fail, check: Port, says: "has the VIP, but nothing listens",
		},
		{
			name: "no address here", subject: with(subject(DSR), only(vip6, served)),
			make: func(w *world) func() {
				w.must(w.box.DelAddr("eth0", box6))
				return func() { w.must(w.box.AddAddr("eth0", box6)) }
			},
			status: Skipped, check: VIP, says: "this box has no IPv6 address on eth0",
		},
	} {
		t.Run(f.name, func(t *testing.T) { f.run(t, w) })
	}
}

func TestTunnel(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		backend, vip netip.Addr
		name, module string
	}{
		{back4, vip4, "IPv4 in IPv4", "modprobe ipip"},
		{back4, vip6, "IPv6 in IPv4", "modprobe sit"},
		{back6, vip4, "IPv4 in IPv6", "modprobe ip6_tunnel"},
		{back6, vip6, "IPv6 in IPv6", "modprobe ip6_tunnel"},
	} {
		s := ipip(test.backend, test.vip)
		for _, f := range []fault{
			{name: "nothing wrong", make: decapsulated, subject: s, status: OK, also: VIP},
			{
				name: "not decapsulated", make: nothing, subject: s,
				status: Fail, check: Tunnel, says: test.name, fix: "weir decap --interface NIC --vip " + test.vip.String() + "\nor: " + test.module,
			},
			{
				name: "VIP missing", make: both(decapsulated, unserve(test.vip)), subject: s,
				status: Fail, check: VIP, says: "the VIP is not on the backend", fix: "ip addr add " + test.vip.String(),
			},
			{
				name: "forwards", make: both(both(decapsulated, unserve(test.vip)), forwarding), subject: s,
				status: Fail, check: VIP, says: "forwards them", fix: "ip addr add " + test.vip.String(),
			},
			{
				name: "refused", make: decapsulated, subject: with(s, only(test.vip, closed)),
				status: Fail, check: Port, says: "has the VIP, but nothing listens",
			},
		} {
			t.Run(test.name+"/"+f.name, func(t *testing.T) { f.run(t, w) })
		}
	}
	silent := fault{
		make: func(w *world) func() { return w.swallow(4) }, subject: ipip(back4, vip4),
		status: Fail, check: Tunnel, says: "either rp_filter of the tunnel's device drops the packets, or the VIP 10.0.0.200 is missing",
		fix: "sysctl -w net.ipv4.conf.tunl0.rp_filter=0",
	}
	t.Run("silent", func(t *testing.T) { silent.run(t, w) })
}

// A path with less room: the router says so, or nobody does.
func TestPathMTU(t *testing.T) {
	w := newWorld(t)
	forward := forwarding(w)
	defer forward()
	far, err := w.lab.Host("far")
	w.must(err)
	w.must(w.backend.ConnectTo(far,
		iface("eth1", 1400, netip.MustParsePrefix("10.5.0.1/24"), netip.MustParsePrefix("fd05::1/64")),
		iface("eth0", 1400, netip.MustParsePrefix("10.5.0.2/24"), netip.MustParsePrefix("fd05::2/64"))))
	near, err := w.lab.Host("near")
	w.must(err)
	_, err = near.Connect(w.net, iface("eth0", 1400, netip.MustParsePrefix("10.0.0.14/24"), netip.MustParsePrefix("fd00::14/64")))
	w.must(err)
	for _, r := range []struct{ to, via string }{{"10.5.0.0/24", "10.0.0.11"}, {"fd05::/64", "fd00::11"}} {
		w.must(w.box.AddRoute(netip.MustParsePrefix(r.to), netip.MustParseAddr(r.via)))
	}
	for _, r := range []struct{ to, via string }{{"10.0.0.0/24", "10.5.0.1"}, {"fd00::/64", "fd05::1"}} {
		w.must(far.AddRoute(netip.MustParsePrefix(r.to), netip.MustParseAddr(r.via)))
	}
	nat := func(addr string, mtu int) Subject {
		return with(subject(NAT), func(s *Subject) { s.Backend, s.Port, s.MTU = netip.MustParseAddr(addr), 0, mtu })
	}
	for _, f := range []fault{
		{name: "fits", make: nothing, subject: nat("10.5.0.2", 1400), status: OK, also: PathMTU},
		{name: "fits, IPv6", make: nothing, subject: nat("fd05::2", 1400), status: OK, also: PathMTU},
		{name: "router", make: nothing, subject: nat("10.5.0.2", 1500), status: Warn, check: PathMTU, says: "10.0.0.11 says that packets to 10.5.0.2 may have 1400 bytes", fix: "mtu: 1400"},
		{name: "router, IPv6", make: nothing, subject: nat("fd05::2", 1500), status: Warn, check: PathMTU, says: "fd00::11 says that packets to fd05::2 may have 1400 bytes", fix: "mtu: 1400"},
		{name: "nobody", make: nothing, subject: nat("10.0.0.14", 1500), status: Fail, check: PathMTU, says: "nobody says so", fix: "ping -M do -s 1472 10.0.0.14"},
		{name: "nobody, IPv6", make: nothing, subject: nat("fd00::14", 0), status: Fail, check: PathMTU, says: "nobody says so", fix: "ping -M do -s 1452 fd00::14"},
		{name: "here", make: nothing, subject: nat("10.0.0.11", 9000), status: Warn, check: PathMTU, says: "do not fit eth0, whose MTU is 1500", fix: "ip link set eth0 mtu 9000"},
	} {
		t.Run(f.name, func(t *testing.T) { f.run(t, w) })
	}
}

// Packets that did not even leave are worth a word.
func TestLosses(t *testing.T) {
	w := newWorld(t)
	gone, short := w.way(nil), via.Way{Interface: "eth0", Has4: true}
	gone.Interface = "eth7"
	var err error
	short.IPv4, err = rewrite.IPIP(rewrite.Link{Src: packet.MAC(w.link.MAC), Dst: w.mac, MTU: 70}, false,
		rewrite.Tunnel{Source: box4.Addr(), Destination: back4})
	w.must(err)
	w.network.SetWays(map[string]via.Way{"gone": gone, "short": short, DSR: w.way(nil)})
	for _, test := range []struct{ way, says string }{
		{"gone", "could not be sent while its VIPs were asked for: find interface eth7"},
		{"short", "did not fit the way to it"},
		{DSR, ""},
	} {
		d := w.examine(with(with(subject(DSR), only(vip4, served)), func(s *Subject) { s.Way = test.way }))
		tree := draw(&d, "")
		if warned := has(&d, Way, Warn); warned != (test.says != "") || !strings.Contains(tree, test.says) {
			t.Errorf("%s: want %q; got\n%s", test.way, test.says, tree)
		}
	}
}

func TestWithoutSteering(t *testing.T) {
	w := newWorld(t)
	w.doctor = New(nil, wait)
	f := fault{make: nothing, subject: subject(DSR), status: Skipped, check: VIP, says: "weir's log says why"}
	f.run(t, w)
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var d Diagnosis
	w.must(w.box.Do(func() error { d = w.doctor.Examine(ctx, subject(DSR)); return nil }))
	if got, found := d.First(Skipped); !found || got.Check != "rest" || d.Status != Skipped {
		t.Errorf("got %+v", d)
	}
}
