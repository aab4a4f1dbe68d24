package forward

import (
	"encoding/binary"

	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
)

// claims says which of the other stations' claims of addresses the control plane
// is told. Whoever sends a flood of them for one address must not hide those for
// another, nor what other stations say about the same. So each station has a
// rate for each address, and so has each address, and all together; they are
// asked in that order, and what the first refuses costs the others nothing.
// And the answers that a node gets when it asks for addresses are claims: one that
// is not told would count as silence, and two nodes would have an address.
type claims struct {
	inAll   [2]limit.Bucket // of claims, and of probes: these need no answer
	sources *limit.Sources
}

// The rates at which claims are told, and probes by themselves. A station that
// has an address says so every few seconds at the most; it may have done so, and
// been asked three times, within a second. A node asks for 640 addresses a second.
func claimsPerStation() limit.Rate { return limit.Rate{PerSecond: 4, Burst: 8} }
func claimsPerAddress() limit.Rate { return limit.Rate{PerSecond: 16, Burst: 16} }
func claimsInAll() limit.Rate      { return limit.Rate{PerSecond: 1024, Burst: 1024} }

// claimSources is how many stations and addresses have buckets: 64 KiB of them.
const claimSources = 1 << 12

func newClaims() claims { return claims{sources: limit.New(claimSources)} }

// Numbers that tell the buckets of claims, and of probes, apart.
const (
	claimOfStation = iota
	claimOfAddress
	claimKinds
)

// allow tells whether the control plane is told of a claim.
func (c *claims) allow(addr *[16]byte, by packet.MAC, probe bool, now flow.Tick) bool {
	kind, inAll := uint32(0), &c.inAll[0]
	if probe {
		kind, inAll = claimKinds, &c.inAll[1]
	}
	var station [16]byte
	copy(station[:], by[:])
	binary.BigEndian.PutUint64(station[8:], flow.HashStableSource(addr))
	return c.sources.Allow(kind+claimOfStation, &station, claimsPerStation(), now) &&
		c.sources.Allow(kind+claimOfAddress, addr, claimsPerAddress(), now) &&
		inAll.Allow(claimsInAll(), now)
}

// tell tells the control plane that a station claims one of weir's addresses, or
// probes for it.
func (f *Forwarder) tell(addr *[16]byte, by packet.MAC, probe bool) {
	if f.claims.allow(addr, by, probe, f.now) {
		f.outbox.Claim(*addr, by, probe)
	}
}

// isOurs tells whether a station is one of weir's interfaces.
func (f *Forwarder) isOurs(station packet.MAC) bool {
	for i := range f.snap.Interfaces {
		if mac := f.snap.Interfaces[i].MAC; mac == station && !mac.IsZero() {
			return true
		}
	}
	return false
}
