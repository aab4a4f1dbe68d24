package forward_test

import (
	"bytes"
	"net/netip"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// nodeMAC names another node on its link.
func nodeMAC(n int) packet.MAC { return packet.MAC{0x02, 0, 0, 3, 0, byte(n)} }

// The members of the spreads of the NAT world.
const (
	memberSelf = iota
	memberEth0
	memberEth1 // on a link with an MTU of 1400
)

// worldSpread shares a VIP out to three nodes.
func worldSpread(vip netip.Addr) snapshot.Spread {
	spread := snapshot.Spread{Addr: vip.As16(), Members: []snapshot.SpreadMember{memberSelf: {Self: true}}}
	for n, link := range []rewrite.Link{{Src: eth0MAC, MTU: 1500}, {Egress: 1, Src: eth1MAC, MTU: 1400}} {
		link.Dst = nodeMAC(n + 1)
		spread.Members = append(spread.Members, snapshot.SpreadMember{Rewrite: must(rewrite.DSR(link, vip.Is6()))})
	}
	for i := range tableSize {
		spread.Table = append(spread.Table, uint16(i%3))
	}
	return spread
}

// of gives a packet a source port such that a member has its flow.
func of(member int, s packettest.Spec) packettest.Spec {
	spread := worldSpread(s.Dst.Addr())
	for port := uint16(2000); ; port++ {
		t := packet.Tuple{
			Src: s.Src.Addr().As16(), Dst: s.Dst.Addr().As16(), SrcPort: port, DstPort: s.Dst.Port(), Proto: s.Proto,
		}
		if spread.Member(&snapshot.Service{}, &t) == &spread.Members[member] {
			s.Src = netip.AddrPortFrom(s.Src.Addr(), port)
			return s
		}
	}
}

// byMember is a frame as another node gives it to this one.
func byMember(frame []byte) []byte { return fromMAC(bytes.Clone(frame), nodeMAC(memberEth0)) }

// memberCases are about VIPs whose flows several nodes have a share of.
func memberCases() []goldenCase {
	frame := packettest.Frame
	var cases []goldenCase
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{{"4", vipAll4}, {"6", vipAll6}} {
		tcp, udp := func(m int) packettest.Spec { return of(m, to(v.vip)) }, func(m int) packettest.Spec { return of(m, udpTo(v.vip)) }
		large := with(udp(memberEth1), func(s *packettest.Spec) { s.DontFragment, s.Payload = true, make([]byte, 1400) })
		failed := func(m int) []byte { return toClientFailed(errorKinds()[0], tcp(m), 0) }
		hops := func(n uint8) func(*packettest.Spec) { return func(s *packettest.Spec) { s.TTL = n } }
		cases = append(cases,
			natCase("spread"+v.name+"-self", "the node's own share", in(frame(tcp(memberSelf))), in(frame(udp(memberSelf)))),
			natCase("spread"+v.name+"-tcp", "another node's flow is given to it, and nothing remembered",
				in(frame(tcp(memberEth0))), in(frame(ack(tcp(memberEth0), "data"))), in(frame(flags(tcp(memberEth0), packet.TCPRst)))),
			natCase("spread"+v.name+"-udp", "the same", in(frame(udp(memberEth0))), in(frame(udp(memberEth0)))),
			natCase("spread"+v.name+"-eth1", "a node on another link", in(frame(tcp(memberEth1)))),
			natCase("spread"+v.name+"-tagged", "it stays on its VLAN", in(frame(with(tcp(memberEth0), func(s *packettest.Spec) { s.VLAN, s.Priority = 9, 3 })))),
			natCase("spread"+v.name+"-padded", "it stays padded", in(frame(with(udp(memberEth0), func(s *packettest.Spec) { s.Payload, s.Padding = []byte("x"), 17 })))),
			natCase("spread"+v.name+"-given", "what another node gives is not given away, and is known from then on",
				in(byMember(frame(tcp(memberEth0)))), in(frame(ack(tcp(memberEth0), "")))),
			natCase("spread"+v.name+"-last-hop", "with no hop left it is not given away",
				in(frame(with(udp(memberEth0), hops(1)))), in(frame(with(udp(memberEth1), hops(2))))),
			natCase("spread"+v.name+"-reopened", "a connection is over, and the next one is another node's, with all that follows",
				in(byMember(frame(tcp(memberEth0)))), in(frame(flags(tcp(memberEth0), packet.TCPFin|packet.TCPAck))),
				in(frame(tcp(memberEth0))), in(frame(ack(tcp(memberEth0), "data")))),
			natCase("spread"+v.name+"-repeated", "a SYN that comes again opens nothing anew",
				in(byMember(frame(tcp(memberEth0)))), in(frame(tcp(memberEth0)))),
			natCase("spread"+v.name+"-expired", "a flow that was here is over, and another node's after that",
				in(byMember(frame(udp(memberEth0)))),
				in(frame(udp(memberEth0))).after(flow.TickAt(flow.DefaultTimeouts().UDP)+1)),
			natCase("spread"+v.name+"-fragments", "all fragments go to the same node", steps(0, pieces(udp(memberEth0))...)...),
			natCase("spread"+v.name+"-fragments-given", "fragments that another node gives", steps(0, given(pieces(udp(memberEth1)))...)...),
			natCase("spread"+v.name+"-too-big", "the link to the node has a smaller MTU, and the client is told", in(frame(large))),
			natCase("spread"+v.name+"-error", "an error goes to the node whose flow it is about",
				in(failed(memberEth0)), in(failed(memberSelf)), in(byMember(failed(memberEth0)))),
			natCase("spread"+v.name+"-error-known", "but one about a flow that is known here is for its backend",
				in(byMember(frame(tcp(memberEth0)))), in(failed(memberEth0))),
			natCase("spread"+v.name+"-ping", "who announces the VIP answers ping", in(packettest.EchoRequest(to(v.vip), 1, 2))),
			natCase("spread"+v.name+"-no-service", "and refuses what nobody serves",
				in(frame(with(to(v.vip), func(s *packettest.Spec) { s.Dst = netip.AddrPortFrom(v.vip, 83) }))).dropped(stats.NoService)),
		)
	}
	udp4 := of(memberEth1, udpTo(vipAll4))
	return append(cases,
		natCase("spread-cut", "a packet that may be cut is, before it goes to the node",
			in(frame(with(udp4, func(s *packettest.Spec) { s.Payload = make([]byte, 1400) })))),
		natCase("spread-options", "options stay", in(frame(with(of(memberEth0, udpTo(vipAll4)), func(s *packettest.Spec) { s.IPOptions = 3 })))),
		natCase("spread-extensions", "so do extension headers", in(frame(with(of(memberEth0, udpTo(vipAll6)), extensions)))),
		natCase("spread-nat", "a NAT flow is the node's that has the SNAT port: none is given away",
			in(frame(with(of(memberEth0, to(vipAll4)), func(s *packettest.Spec) { s.Dst = netip.AddrPortFrom(vipAll4, 81) })))),
	)
}

func given(frames [][]byte) [][]byte {
	for i := range frames {
		frames[i] = byMember(frames[i])
	}
	return frames
}
