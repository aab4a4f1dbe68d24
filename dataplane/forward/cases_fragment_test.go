package forward_test

import (
	"net/netip"
	"slices"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// long is the payload of a datagram that is cut into three fragments of 48
// bytes or less.
func long(s *packettest.Spec) {
	s.Payload = make([]byte, 100)
	for i := range s.Payload {
		s.Payload[i] = byte(i)
	}
}

func pieces(s packettest.Spec) [][]byte { return packettest.Fragments(with(s, long), 48) }

// steps makes steps of frames that come in on one interface.
func steps(ingress uint16, frames ...[]byte) []step {
	var all []step
	for _, f := range frames {
		all = append(all, step{ingress: ingress, frame: f})
	}
	return all
}

func reverse(frames [][]byte) [][]byte {
	frames = slices.Clone(frames)
	slices.Reverse(frames)
	return frames
}

// fragmentCases are fragments that go to a backend.
func fragmentCases() []goldenCase {
	fragments := packettest.Fragments
	number := func(s packettest.Spec, id uint16) packettest.Spec { s.ID = id; return s }
	var cases []goldenCase
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{
		{"4", vipDSR4}, {"6", vipDSR6}, {"-4in4", vip4in4}, {"-4in6", vip4in6}, {"-6in6", vip6in6}, {"-6in4", vip6in4},
		{"-nat44", vipNAT44}, {"-nat66", vipNAT66}, {"-nat46", vipNAT46}, {"-nat64", vipNAT64},
		{"-keep4", vipKeep4}, {"-keep6", vipKeep6},
	} {
		udp, tcp := pieces(udpTo(v.vip)), pieces(to(v.vip))
		a, b := pieces(number(udpTo(v.vip), 1)), pieces(number(to(v.vip), 2))
		cases = append(cases,
			natCase("fragments"+v.name, "the first has the ports, the others have not", steps(0, udp...)...),
			natCase("fragments-tcp"+v.name, "the same for TCP", steps(0, tcp...)...),
			natCase("fragments-reversed"+v.name, "the first comes last: the others wait for it", steps(0, reverse(udp)...)...),
			natCase("fragments-interleaved"+v.name, "of two datagrams in turn",
				steps(0, a[1], b[0], a[0], b[2], a[2], b[1])...),
		)
	}
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{{"4", vipDSR4}, {"6", vipDSR6}, {"-nat44", vipNAT44}} {
		u, other := pieces(udpTo(v.vip)), fragments(with(udpTo(v.vip), long), 40)
		tiny := fragments(with(to(v.vip), long), 8)
		cases = append(cases,
			natCase("fragments-overlap"+v.name, "the second begins in the first: nothing of the datagram goes on (RFC 5722)",
				in(u[0]), in(other[1]).dropped(stats.FragmentOverlap), in(u[2]).dropped(stats.FragmentOverlap)),
			natCase("fragments-duplicate"+v.name, "each comes twice, and goes on once", in(u[0]), in(u[0]).dropped(stats.FragmentDuplicate),
				in(u[1]), in(u[1]).dropped(stats.FragmentDuplicate), in(u[2])),
			natCase("fragments-tiny"+v.name, "the first ends before the TCP header does, others begin inside it (RFC 1858)",
				in(tiny[0]).dropped(stats.FragmentTiny), in(tiny[1]).dropped(stats.FragmentTiny),
				in(tiny[2]).dropped(stats.FragmentTiny), in(tiny[3]),
				in(packettest.Frame(udpTo(v.vip))).after(40)),
			natCase("fragments-lost"+v.name, "the first does not come: the others do not wait for ever",
				in(u[1]), in(u[2]), in(packettest.Frame(udpTo(v.vip))).after(40)),
			natCase("fragments-late"+v.name, "the first comes when the others have been given up",
				in(u[1]), in(u[0]).after(40), in(u[2]).after(41)),
			natCase("fragments-tagged"+v.name, "with a VLAN tag", steps(0,
				reverse(pieces(with(udpTo(v.vip), func(s *packettest.Spec) { s.VLAN = 9 })))...)...),
		)
	}
	gre := with(to(vipDSR4), func(s *packettest.Spec) { s.Proto, s.Payload = packet.ProtoGRE, make([]byte, 100) })
	closed := with(udpTo(vipDSR4), func(s *packettest.Spec) { s.Dst = netip.AddrPortFrom(vipDSR4, 54) })
	ext := hiddenFragments(udpTo(vip6in6))
	return append(cases,
		natCase("fragments-hidden6", "destination options before the transport header, behind the fragment header: the later ones do not say their protocol",
			steps(0, ext...)...),
		natCase("fragments-hidden-reversed6", "the same, the other way round", steps(0, reverse(ext)...)...),
		natCase("fragments-hidden-nat66", "the same with NAT", steps(0, hiddenFragments(udpTo(vipNAT66))...)...),
		natCase("fragments-gre", "neither TCP nor UDP", in(fragments(gre, 48)[0]).dropped(stats.UnhandledProtocol),
			in(fragments(gre, 48)[1]).dropped(stats.UnhandledProtocol)),
		natCase("fragments-icmp4", "a ping in pieces", in(fragments(with(to(vipDSR4), func(s *packettest.Spec) {
			s.Proto, s.Payload = packet.ProtoICMPv4, packettest.EchoRequest(with(to(vipDSR4), long), 1, 1)[34:]
		}), 48)[0]).dropped(stats.ICMPUnhandled)),
		natCase("fragments-no-service", "nobody serves the port", in(pieces(closed)[0]).dropped(stats.NoService),
			in(pieces(closed)[1]).dropped(stats.NoService)),
	)
}

// hiddenFragments are fragments of a datagram with destination options before
// its transport header.
func hiddenFragments(s packettest.Spec) [][]byte {
	transport := packettest.Frame(with(s, long))[14+40:]
	s.Payload = append([]byte{s.Proto, 0, 1, 4, 0, 0, 0, 0}, transport...)
	s.Proto = packet.ProtoDestOptions
	return packettest.Fragments(s, 48)
}

// fragmentNATCases are fragments of answers, and what only NAT does to them.
func fragmentNATCases() []goldenCase {
	frame := packettest.Frame
	var cases []goldenCase
	for _, v := range natVariants() {
		question := in(frame(udpTo(v.vip)))
		answer := pieces(answerTo(udpTo(v.vip)))
		cases = append(cases,
			natCase("fragments-answer-"+v.name, "the answer is in fragments", append([]step{question}, steps(1, answer...)...)...),
			natCase("fragments-answer-reversed-"+v.name, "the other way round",
				append([]step{question}, steps(1, reverse(answer)...)...)...),
			natCase("fragments-answer-unknown-"+v.name, "of no flow", steps(1, answer...)[0].dropped(stats.NoFlow),
				step{ingress: 1, frame: answer[1], drop: stats.NoFlow}),
		)
	}
	unsummed := pieces(with(udpTo(vipNAT46), func(s *packettest.Spec) { s.NoUDPChecksum = true }))
	return append(cases,
		natCase("fragments-no-checksum-nat46", "the checksum that IPv6 demands is not to be had (RFC 7915 section 4.5)",
			in(unsummed[0]).dropped(stats.Untranslatable)),
		natCase("fragments-middle-nat44", "a fragment of a connection that nobody knows gets no reset",
			in(pieces(ack(to(vipNAT44), ""))[0]).dropped(stats.NoFlow)),
	)
}
