package forward_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
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
	if told[stationMAC(1)] > 63 || told[stationMAC(2)] != 12 {
		t.Errorf("told %v", told)
	}
}

// However many addresses a flood is about, what is told has a rate.
func TestFloodOfClaimsOfAllVIPs(t *testing.T) {
	r := newRigIn(t, 64, silentWorld)
	told := 0
	for now := range flow.Tick(10 * flow.TicksPerSecond) {
		for n := range 1000 {
			vip := netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + n%42)})
			r.one(claimFrame(stationMAC(int(now)*1000+n), vip), now)
		}
		told += len(r.claimed)
		r.claimed = nil
	}
	if told < 2000 || told > 2700 {
		t.Errorf("%d claims were told in ten seconds, want 256 a second and 128 at once", told)
	}
}
