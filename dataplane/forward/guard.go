package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// guards keep what services can be protected by: access lists and rates.
type guards struct {
	newFlows limit.Bucket // of all services: entries made
	doors    *snapshot.Doors
	services []guard        // one for each of doors.IDs: a service is several in the snapshot if it has several VIPs
	of       []uint32       // by index in the snapshot: which of services; is doors.Of
	sources  *limit.Sources // nil until a service limits its sources
}

// guard is the state of one service's limits.
type guard struct {
	id       uint32 // of the service
	packets  limit.Bucket
	newFlows limit.Bucket
}

// Kinds of buckets in sources, which tell a service's two apart.
const (
	sourcePackets = iota
	sourceNewFlows
	sourceKinds
)

// adopt makes room for the services of snap; what is left in the buckets of
// those that stay is kept.
func (g *guards) adopt(snap *snapshot.Snapshot) {
	doors := snap.Doors()
	if doors == g.doors {
		return
	}
	old := make(map[uint32]guard, len(g.services))
	for _, s := range g.services {
		old[s.id] = s
	}
	g.doors, g.of = doors, doors.Of
	g.services = make([]guard, len(doors.IDs))
	for i, id := range doors.IDs {
		g.services[i] = old[id]
		g.services[i].id = id
	}
	if doors.Sources && g.sources == nil {
		g.sources = limit.New(limit.DefaultEntries)
	}
}

// admit tells whether a client's packet may pass, or why not.
func (g *guards) admit(service uint32, svc *snapshot.Service, p *packet.Parsed, now flow.Tick) stats.Reason {
	if !svc.Guarded() {
		return stats.ReasonNone
	}
	s := &g.services[g.of[service]]
	if !svc.ACL.Allows(&p.Src) {
		return stats.Denied
	}
	l := &svc.Limits
	return g.spend(svc, &s.packets, sourcePackets, l.SourcePackets, l.Packets, &p.Src, now)
}

// admitFlow tells whether a client's packet may begin a flow, or why not.
func (g *guards) admitFlow(service uint32, svc *snapshot.Service, p *packet.Parsed, now flow.Tick) stats.Reason {
	if !svc.Guarded() {
		return stats.ReasonNone
	}
	s := &g.services[g.of[service]]
	l := &svc.Limits
	return g.spend(svc, &s.newFlows, sourceNewFlows, l.SourceNewFlows, l.NewFlows, &p.Src, now)
}

// spend takes one from the bucket of a source, and then, so that one source
// does not use up what is for all, from that of the service.
func (g *guards) spend(svc *snapshot.Service, bucket *limit.Bucket, kind uint32, source, all limit.Rate, src *[16]byte, now flow.Tick) stats.Reason {
	if source != (limit.Rate{}) {
		prefix := limit.Mask(src, svc.Limits.SourceBits, svc.Limits.SourceBits)
		if !g.sources.Allow(svc.ID*sourceKinds+kind, &prefix, source, now) {
			return stats.SourceLimit
		}
	}
	if all != (limit.Rate{}) && !bucket.Allow(all, now) {
		return stats.ServiceLimit
	}
	return stats.ReasonNone
}
