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
type claims struct {
	bucket  limit.Bucket
	sources *limit.Sources
}

// The rates at which claims are told, and probes by themselves. A station that
// has an address says so every few seconds at the most.
func claimsPerStation() limit.Rate { return limit.Rate{PerSecond: 1, Burst: 3} }
func claimsPerAddress() limit.Rate { return limit.Rate{PerSecond: 16, Burst: 16} }
func claimsInAll() limit.Rate      { return limit.Rate{PerSecond: 256, Burst: 128} }

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
	kind := uint32(0)
	if probe {
		kind = claimKinds
	}
	var station [16]byte
	copy(station[:], by[:])
	binary.BigEndian.PutUint64(station[8:], flow.HashStableSource(addr))
	return c.sources.Allow(kind+claimOfStation, &station, claimsPerStation(), now) &&
		c.sources.Allow(kind+claimOfAddress, addr, claimsPerAddress(), now) &&
		c.bucket.Allow(claimsInAll(), now)
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
