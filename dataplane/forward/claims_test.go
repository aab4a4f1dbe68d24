package forward_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
)

// claimFrame is a gratuitous ARP request of a station.
func claimFrame(by packet.MAC, vip netip.Addr) []byte {
	return packettest.ARPRequest(packettest.Spec{SrcMAC: by, Src: netip.AddrPortFrom(vip, 0)}, vip)
}

func stationMAC(n int) packet.MAC { return packet.MAC{2, 0, 1, byte(n >> 16), byte(n >> 8), byte(n)} }

// For a minute, stations without number claim one VIP. All else that other
// stations say is told at once, if it is the first of its kind.
func TestFloodOfClaims(t *testing.T) {
	r := newRigIn(t, 64, natWorld)
	const perTick = 200
	told, quiet := 0, 0
	for now := range flow.Tick(60 * flow.TicksPerSecond) {
		for n := range perTick {
			r.one(claimFrame(stationMAC(int(now)*perTick+n), vipSilent4), now)
		}
		told += len(r.claimed)
		r.claimed = nil
		if now%flow.TicksPerSecond != 0 {
			continue
		}
		for what, frame := range map[string][]byte{
			"a claim of another VIP": claimFrame(otherMAC, vipDSR4),
			"a probe for the VIP":    packettest.ARPRequest(packettest.Spec{SrcMAC: otherMAC, Src: netip.MustParseAddrPort("0.0.0.0:0")}, vipSilent4),
		} {
			if r.one(frame, now); len(r.claimed) != 1 {
				t.Fatalf("at tick %d %s was told %d times", now, what, len(r.claimed))
			}
			r.claimed = nil
			quiet++
		}
	}
	if told < 60*10 || told > 60*20 || quiet != 120 {
		t.Errorf("of the flood %d claims were told in a minute", told)
	}
}

// One station that claims a VIP all the time does not hide another one that claims
// it too.
func TestTwoStationsClaim(t *testing.T) {
	r := newRigIn(t, 64, natWorld)
	told := map[packet.MAC]int{}
	for now := range flow.Tick(60 * flow.TicksPerSecond) {
		for range 100 {
			r.one(claimFrame(stationMAC(1), vipSilent4), now)
		}
		if now%(5*flow.TicksPerSecond) == 0 {
			r.one(claimFrame(stationMAC(2), vipSilent4), now)
		}
		for _, c := range r.claimed {
			told[c.by]++
		}
		r.claimed = nil
	}
	if told[stationMAC(1)] > 4*60+8 || told[stationMAC(2)] != 12 {
		t.Errorf("told %v", told)
	}
}

// crowdWorld is natWorld with a thousand VIPs more.
func crowdWorld(space *nat.Space) *snapshot.Snapshot {
	spec := natSpec(space, snatPort, snatPort)
	last := spec.VIPs[len(spec.VIPs)-1]
	for n := range 1000 {
		last.Addr = crowdVIP(n).As16()
		spec.VIPs = append(spec.VIPs, last)
	}
	return must(snapshot.New(spec))
}

func crowdVIP(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) }

func probeFrame(by packet.MAC, vip netip.Addr) []byte {
	return packettest.ARPRequest(packettest.Spec{SrcMAC: by, Src: netip.MustParseAddrPort("0.0.0.0:0")}, vip)
}

// However many addresses a flood is about, what is told has a rate.
func TestFloodOfClaimsOfAllVIPs(t *testing.T) {
	for name, frame := range map[string]func(packet.MAC, netip.Addr) []byte{"claims": claimFrame, "probes": probeFrame} {
		t.Run(name, func(t *testing.T) {
			r := newRigIn(t, 64, crowdWorld)
			told := 0
			for now := range flow.Tick(10 * flow.TicksPerSecond) {
				for n := range 1000 {
					r.one(frame(stationMAC(int(now)*1000+n), crowdVIP(n)), now)
				}
				told += len(r.claimed)
				r.claimed = nil
			}
			if told < 10*1024 || told > 11*1024 {
				t.Errorf("%d were told in ten seconds, want 1024 a second and 1024 at once", told)
			}
		})
	}
}

// A node asks for a thousand addresses at the rate that package l2 has, 64 in
// 100 ms, and one station has them all, while other nodes ask for as many: each
// answer is told.
func TestAnswersAreTold(t *testing.T) {
	r := newRigIn(t, 64, crowdWorld)
	for round := range 3 {
		told := map[netip.Addr]bool{}
		start := flow.Tick(round * 10 * flow.TicksPerSecond)
		for n := range 1000 {
			now := start + flow.Tick(n/40)
			for other := range 4 {
				r.one(probeFrame(stationMAC(other), crowdVIP((n+other*250)%1000)), now)
			}
			r.one(claimFrame(otherMAC, crowdVIP(n)), now)
		}
		for _, c := range r.claimed {
			if !c.probe {
				told[c.addr] = true
			}
		}
		r.claimed = nil
		if len(told) != 1000 {
			t.Errorf("in round %d, answers for %d of 1000 addresses were told", round, len(told))
		}
	}
}

// A station that claims an address and then answers for it is heard each time: in
// package l2 that decides whether it has the address.
func TestStationThatInsistsIsHeard(t *testing.T) {
	r := newRigIn(t, 64, natWorld)
	for _, now := range []flow.Tick{0, 1, 2, 7, 12} { // 300 ms are 5 ticks
		r.one(claimFrame(otherMAC, vipDSR4), now)
	}
	if len(r.claimed) != 5 {
		t.Errorf("%d of 5 claims were told", len(r.claimed))
	}
}
