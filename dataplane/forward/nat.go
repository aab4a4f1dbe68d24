package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// Under NAT a flow has a second key, the tuple of the backend's answers. It is
// not stored: it follows from the entry and from the backend, and an index
// leads from its hash to the entry. Whoever removes an entry has to come by
// forget, which cleans that index.

// natState is what a worker keeps for NAT. All but space is nil until a
// snapshot has a service with NAT.
type natState struct {
	space    *nat.Space
	ports    *nat.Ports
	index    *nat.Index
	stations *nat.Stations
	scarce   flow.Tick  // when a search for a port last found none that was free
	tried    int        // ports that the latest search has tried
	addrs    [][16]byte // SNAT addresses by slot of space, those no longer in use as well

	// retired are the addresses of backends that a snapshot has taken away,
	// for as long as a flow can still be in the table, and retirees the same in the
	// order in which they were.
	retired  map[retiredKey]*retiredBackend
	retirees []retiredKey
}

type retiredKey struct{ slot, generation uint32 }

type retiredBackend struct {
	addr  [16]byte
	port  uint16
	since flow.Tick
}

// sweepSlack is how much later than its time-out, in ticks, a flow may be swept.
const sweepSlack = 60 * flow.TicksPerSecond

// Bits of flow.NATState.Flags.
const (
	natFlow = 1 << iota // the entry is of a NAT flow
	natKeep             // the client's address was left: Slot and Port have no meaning
	plain               // no NAT, and all that is done to the packets of this known flow is a Direct
)

func isNAT(e *flow.Entry) bool { return e.NAT.Flags&natFlow != 0 }

// adoptNAT gets ready for the NAT of snap, gets hold of some of its SNAT ports,
// and remembers the backends that it takes away: they are among the slots that have
// changed hands.
func (f *Forwarder) adoptNAT(snap *snapshot.Snapshot, slots []uint32, all bool) {
	n := &f.nat
	if n.index == nil {
		if !snap.NAT() {
			return
		}
		n.ports = nat.NewPorts(n.space, f.worker)
		n.index = nat.NewIndex(f.flows.Cap())
		n.stations = nat.NewStations()
		n.retired = make(map[retiredKey]*retiredBackend)
		n.scarce = f.now - 1
	}
	for _, a := range [][]snapshot.SNAT{snap.SNAT4, snap.SNAT6} {
		for i := range a {
			slot := int(a[i].Range.Slot)
			if missing := slot + 1 - len(n.addrs); missing > 0 {
				n.addrs = append(n.addrs, make([][16]byte, missing)...)
			}
			n.addrs[slot] = a[i].Addr
			n.ports.Hold(a[i].Range, f.flows.Hash(&packet.Tuple{Dst: a[i].Addr}))
		}
	}
	f.forgetRetired()
	switch {
	case f.snap == nil:
	case all:
		for slot := range f.snap.Slots() {
			f.retire(uint32(slot), snap)
		}
	default:
		for _, slot := range slots {
			f.retire(slot, snap)
		}
	}
}

// retire remembers the backend of a slot if snap takes it away.
func (f *Forwarder) retire(slot uint32, snap *snapshot.Snapshot) {
	if uint64(slot) >= uint64(f.snap.Slots()) {
		return
	}
	old := f.snap.Backend(slot)
	if uint64(slot) < uint64(snap.Slots()) && snap.Backend(slot).Generation == old.Generation {
		return
	}
	key := retiredKey{slot, old.Generation}
	if _, known := f.nat.retired[key]; !known {
		f.nat.retirees = append(f.nat.retirees, key)
	}
	f.nat.retired[key] = &retiredBackend{old.Addr, old.Port, f.now}
}

// forgetRetired forgets the backends that no flow in the table can have any more.
func (f *Forwarder) forgetRetired() {
	n, gone := &f.nat, 0
	for _, key := range n.retirees {
		if int32(f.now-n.retired[key].since) <= f.flows.LongestTimeout()+sweepSlack {
			break
		}
		delete(n.retired, key)
		gone++
	}
	n.retirees = n.retirees[gone:]
}

// keeper returns the index of the worker that has the flows of a client whose
// address is left as it is: nothing in the answer but the client tells.
func (f *Forwarder) keeper(client *[16]byte, port uint16) int {
	if len(f.peers) == 1 {
		return f.self
	}
	hash := flow.HashStable(&packet.Tuple{Src: *client, SrcPort: port})
	// The highest of a hash with each number: only the flows of a worker that
	// has gone move (Thaler and Ravishankar, "Using Name-Based Mappings to
	// Increase Hit Rates", 1998).
	best, highest := 0, uint64(0)
	for i, number := range f.peers {
		if h := (hash ^ uint64(number)*0x9e3779b97f4a7c15) * 0xd1b54a32d192ed03; h >= highest {
			best, highest = i, h
		}
	}
	return best
}

// natStays tells whether what a NAT flow was given is still to be had.
func (f *Forwarder) natStays(e *flow.Entry) bool {
	return e.NAT.Flags&natKeep != 0 || f.snap.SNATInUse(e.NAT.Slot, e.NAT.Port)
}

// holds is stays for a flow that was found by its answers: those may be of a
// backend that is not in the snapshot any more.
func (f *Forwarder) holds(e *flow.Entry) bool {
	return e != nil && e.Backend < uint32(f.snap.Slots()) && f.stays(e, f.snap.Backend(e.Backend).Service)
}

// backendPort returns the port that NAT sends a flow's packets to.
func backendPort(configured uint16, e *flow.Entry) uint16 {
	if configured != 0 {
		return configured
	}
	return e.Tuple.DstPort
}

// answerOf fills in answer, the tuple of a NAT flow's answers; ok is false if it is not
// known any more.
func (f *Forwarder) answerOf(e *flow.Entry, answer *packet.Tuple) (ok bool) {
	ok = f.translated(e, answer)
	answer.Src, answer.Dst = answer.Dst, answer.Src
	answer.SrcPort, answer.DstPort = answer.DstPort, answer.SrcPort
	return ok
}

// translated fills in to, the tuple of a NAT flow's packets as they go to the backend;
// ok is false if it is not known any more. It is filled in where it is needed, as to copy
// what was just written field by field, in pieces that span fields, is to wait until that
// is in the cache.
func (f *Forwarder) translated(e *flow.Entry, to *packet.Tuple) (ok bool) {
	backend, port, ok := f.backendOf(e)
	if !ok {
		return false
	}
	client, clientPort := f.clientOf(e)
	to.Src, to.SrcPort = *client, clientPort
	to.Dst, to.DstPort = *backend, port
	to.Proto = e.Tuple.Proto
	return true
}

// Client returns the address and port that the flow's backend sees the client
// as; ok is false if those are the client's own.
func (f *Forwarder) Client(e *flow.Entry) (addr [16]byte, port uint16, ok bool) {
	if !isNAT(e) || e.NAT.Flags&natKeep != 0 {
		return addr, 0, false
	}
	return f.nat.addrs[e.NAT.Slot], e.NAT.Port, true
}

// prefetchAnswers finds out the numbers of the flows that the batch's answers, so many,
// seem to be of, and asks for what answer will read of them; and for what request will, if
// those of no flow are requests.
func (f *Forwarder) prefetchAnswers(answers int) {
	b, strangers := &f.batch, 0
	for n, hash := range b.ahashes[:answers] {
		b.numbers[n] = flow.NoPlace
		if number, at := f.nat.index.Lookup(hash, 0); at >= 0 {
			b.numbers[n] = number
		} else {
			b.strangers[strangers%BatchSize] = hash
			strangers++
		}
	}
	f.flows.Ahead(b.strangers[:strangers])
	f.flows.PrefetchAt(b.numbers[:answers])
	f.flows.Prefetch(b.strangers[:strangers], b.strangerPlaces[:strangers])
}

// answered returns the flow that an answer belongs to, or nil.
func (f *Forwarder) answered(hash uint64, answer *packet.Tuple) (uint32, *flow.Entry) {
	for from := 0; from >= 0; {
		var number uint32
		if number, from = f.nat.index.Lookup(hash, from); from < 0 {
			break
		}
		if e := f.flows.At(number); e != nil && isNAT(e) && f.isAnswerOf(e, answer) {
			return number, e
		}
	}
	return 0, nil
}

// isAnswerOf tells whether a packet with this tuple is an answer of a NAT flow.
func (f *Forwarder) isAnswerOf(e *flow.Entry, answer *packet.Tuple) bool {
	if e.Tuple.Proto != answer.Proto {
		return false
	}
	client, port := f.clientOf(e)
	if port != answer.DstPort || *client != answer.Dst {
		return false
	}
	addr, port, ok := f.backendOf(e)
	return ok && port == answer.SrcPort && *addr == answer.Src
}

// clientOf returns what the backend of a NAT flow sees as its client.
func (f *Forwarder) clientOf(e *flow.Entry) (addr *[16]byte, port uint16) {
	if e.NAT.Flags&natKeep != 0 {
		return &e.Tuple.Src, e.Tuple.SrcPort
	}
	return &f.nat.addrs[e.NAT.Slot], e.NAT.Port
}

// backendOf returns the address and port of the backend of a NAT flow; ok is false
// if they are not known any more.
func (f *Forwarder) backendOf(e *flow.Entry) (addr *[16]byte, port uint16, ok bool) {
	if e.Backend < uint32(f.snap.Slots()) && f.snap.Backend(e.Backend).Generation == e.Generation {
		b := f.snap.Backend(e.Backend)
		return &b.Addr, backendPort(b.Port, e), true
	}
	if b, known := f.nat.retired[retiredKey{e.Backend, e.Generation}]; known {
		return &b.addr, backendPort(b.port, e), true
	}
	return nil, 0, false
}

// translate gives a new flow all that NAT needs. If it cannot, the entry is
// gone.
func (f *Forwarder) translate(e *flow.Entry, p *packet.Parsed, meta *handover.Meta, hash uint64, mode snapshot.Mode, frame *queue.Frame) stats.Reason {
	reason := f.assign(e, hash, mode)
	if reason == stats.ReasonNone {
		if id, ok := f.intern(p, meta, frame); ok {
			e.NAT.Station = id
			e.NAT.Flags |= natFlow
			f.counters.NATFlows++
			return stats.ReasonNone
		}
		f.unassign(e, f.flows.Number(e))
		reason = stats.TableFull
	}
	f.end(e) // not a NAT flow yet: there is nothing to give back
	return reason
}

// intern returns the id of the station that a frame came from.
func (f *Forwarder) intern(p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) (id uint16, ok bool) {
	var st nat.Station
	st.MAC = packet.Ethernet(frame.Bytes()).Src()
	st.VLAN, st.Tagged, st.Interface = p.VLAN, p.Tagged, meta.Ingress
	return f.nat.stations.Intern(&st)
}

// knownToBackend is toBackend for a packet that Table.Known is about.
func (f *Forwarder) knownToBackend(e *flow.Entry, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if !f.nat.stations.Sends(e.NAT.Station, nat.SourceOf(frame.Bytes()), p.VLAN, p.Tagged, meta.Ingress) {
		return f.toBackend(e, p, meta, frame)
	}
	b := f.snap.Backend(e.Backend)
	client, clientPort := f.clientOf(e)
	if (p.Kind == packet.KindIPv4) != packet.IsMapped(b.Addr) {
		var change translate.Change
		change.Src, change.SrcPort = *client, clientPort
		change.Dst, change.DstPort = b.Addr, backendPort(b.Port, e)
		change.Delta = e.Delta
		return f.changed(&change, e, p, meta, frame)
	}
	switch reason := translate.Whole(frame, p, client, &b.Addr, clientPort, backendPort(b.Port, e), e.Delta, b.Rewrite.Room()); reason {
	case stats.ReasonNone:
		b.Rewrite.Frame(frame, frame.Start+p.L3)
		f.targets[e.Backend].sent.Add(frame.Len())
		return Verdict{Action: Send, Egress: b.Rewrite.Egress}
	case stats.TooBig:
		return f.tooBig(p, meta, frame, b.Rewrite.Room(), !packet.IsMapped(b.Addr))
	default:
		return f.refused(reason, p, meta, frame)
	}
}

// toBackend translates a client's packet and sends it to the flow's backend.
func (f *Forwarder) toBackend(e *flow.Entry, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if !f.nat.stations.Sends(e.NAT.Station, nat.SourceOf(frame.Bytes()), p.VLAN, p.Tagged, meta.Ingress) {
		// The client's router has changed: answers follow.
		if id, ok := f.intern(p, meta, frame); ok {
			f.nat.stations.Release(e.NAT.Station)
			e.NAT.Station = id
		}
	}
	var to packet.Tuple
	f.translated(e, &to) // the flow holds, so its backend is known
	var change translate.Change
	change.Set(&p.Tuple, &to, f.mss(p, e))
	return f.changed(&change, e, p, meta, frame)
}

// changed makes a change, which is right for this packet, to a packet of a flow's
// client, and sends it to the backend.
func (f *Forwarder) changed(change *translate.Change, e *flow.Entry, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	b := f.snap.Backend(e.Backend)
	room := b.Rewrite.Room()
	if p.Kind == packet.KindIPv6 && packet.IsMapped(b.Addr) {
		// An IPv6 sender goes no lower. Such packets leave without Don't
		// Fragment, for a router to cut them (RFC 7915 section 5.1).
		room = max(room, ipv6MinMTU-packet.IPv6Len+packet.IPv4MinLen)
	}
	l3, reason := change.Packet(frame, p, room)
	switch reason {
	case stats.ReasonNone:
		b.Rewrite.Frame(frame, l3)
		f.targets[e.Backend].sent.Add(frame.Len())
		return Verdict{Action: Send, Egress: b.Rewrite.Egress}
	case stats.TooBig:
		return f.tooBig(p, meta, frame, room, !packet.IsMapped(b.Addr))
	default:
		return f.refused(reason, p, meta, frame)
	}
}

// answer is the third pass, over a backend's packet, the n-th of the batch: it goes to
// the client of its flow, by the way that one's latest packet came. What only looked like
// an answer is treated as what it is.
func (f *Forwarder) answer(n int, frame *queue.Frame) Verdict {
	b := &f.batch
	at := b.answers[n]
	p, meta := &b.parsed[at], &b.metas[at]
	if b.kinds[at] == isBackward {
		number := b.numbers[n] // of the flow that it seems to be of
		if e := f.flows.At(number); e != nil && isNAT(e) && f.isAnswerOf(e, &p.Tuple) && f.flows.KnownAnswer(number, p.TCPFlags, f.mark, f.now) {
			return f.knownAnswer(e, p, meta, frame)
		}
		switch verdict, next := f.classify(p, meta, frame); next.kind {
		case settled:
			return verdict
		case isRequest:
			return f.request(p, meta, b.ahashes[n], next.service, frame)
		}
	}
	number, e := f.answered(b.ahashes[n], &p.Tuple)
	if !f.holds(e) || !f.flows.Answered(number, segment(p), f.now) {
		return drop(stats.NoFlow)
	}
	var to packet.Tuple
	to.Src, to.SrcPort = e.Tuple.Dst, e.Tuple.DstPort
	to.Dst, to.DstPort = e.Tuple.Src, e.Tuple.SrcPort
	to.Proto = e.Tuple.Proto
	var change translate.Change
	change.Set(&p.Tuple, &to, f.mss(p, e))
	return f.changedBack(&change, e, p, meta, frame)
}

// changedBack makes a change, which is right for this packet, to a packet of a flow's
// backend, and sends it to the client.
func (f *Forwarder) changedBack(change *translate.Change, e *flow.Entry, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	st, mtu := f.wayBack(e)
	if mtu == 0 {
		return drop(stats.NoEgress)
	}
	l3, reason := change.Packet(frame, p, mtu)
	switch reason {
	case stats.ReasonNone:
		f.frameFor(st, frame, l3)
		f.counters.Backends[e.Backend].Answers.Add(frame.Len())
		return Verdict{Action: Send, Egress: st.Interface}
	case stats.TooBig:
		return f.tooBig(p, meta, frame, mtu, !packet.IsMapped(e.Tuple.Src))
	default:
		return f.refused(reason, p, meta, frame)
	}
}

// knownAnswer is answer for a packet that Table.KnownAnswer is about.
func (f *Forwarder) knownAnswer(e *flow.Entry, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	back := ^e.Delta // in one's complement: what the change did is undone
	if (p.Kind == packet.KindIPv4) != packet.IsMapped(e.Tuple.Src) {
		var change translate.Change
		change.Src, change.SrcPort = e.Tuple.Dst, e.Tuple.DstPort
		change.Dst, change.DstPort = e.Tuple.Src, e.Tuple.SrcPort
		change.Delta = back
		return f.changedBack(&change, e, p, meta, frame)
	}
	st, mtu := f.wayBack(e)
	if mtu == 0 {
		return drop(stats.NoEgress)
	}
	switch reason := translate.Whole(frame, p, &e.Tuple.Dst, &e.Tuple.Src, e.Tuple.DstPort, e.Tuple.SrcPort, back, mtu); reason {
	case stats.ReasonNone:
		f.frameFor(st, frame, frame.Start+p.L3)
		f.counters.Backends[e.Backend].Answers.Add(frame.Len())
		return Verdict{Action: Send, Egress: st.Interface}
	case stats.TooBig:
		return f.tooBig(p, meta, frame, mtu, !packet.IsMapped(e.Tuple.Src))
	default:
		return f.refused(reason, p, meta, frame)
	}
}

// wayBack returns the station that a flow's answers go to, and the MTU there; 0
// if its interface is not there (any more).
func (f *Forwarder) wayBack(e *flow.Entry) (*nat.Station, uint32) {
	st := f.nat.stations.At(e.NAT.Station)
	if int(st.Interface) >= len(f.snap.Interfaces) {
		return st, 0
	}
	return st, f.snap.Interfaces[st.Interface].MTU
}

// mss returns the largest segment that both sides of a flow may send whole, for
// a packet that says what its sender takes; else 0.
func (f *Forwarder) mss(p *packet.Parsed, e *flow.Entry) uint16 {
	if p.TCPFlags&packet.TCPSyn == 0 {
		return 0
	}
	headers := func(addr *[16]byte) uint32 {
		if packet.IsMapped(*addr) {
			return packet.IPv4MinLen + packet.TCPMinLen
		}
		return packet.IPv6Len + packet.TCPMinLen
	}
	b := f.snap.Backend(e.Backend)
	room := b.Rewrite.Room() - headers(&b.Addr)
	if _, mtu := f.wayBack(e); mtu > 0 {
		room = min(room, mtu-headers(&e.Tuple.Src))
	}
	return uint16(min(room, 0xffff))
}

// frameFor puts the Ethernet header to a station before the IP packet at l3.
func (f *Forwarder) frameFor(st *nat.Station, frame *queue.Frame, l3 uint32) {
	etherType := uint16(packet.EtherTypeIPv6)
	if frame.Buf[l3]>>4 == 4 {
		etherType = packet.EtherTypeIPv4
	}
	frame.Start = l3 - packet.EthernetLen
	if st.Tagged {
		frame.Start -= packet.VLANTagLen
	}
	eth := packet.Ethernet(frame.Buf[frame.Start:frame.End])
	eth.SetDst(st.MAC)
	eth.SetSrc(f.snap.Interfaces[st.Interface].MAC)
	if st.Tagged {
		eth.SetType(packet.EtherTypeVLAN)
		packet.VLANTag(eth[packet.EthernetLen:]).Encode(&packet.VLANFields{ID: st.VLAN, Type: etherType})
		return
	}
	eth.SetType(etherType)
}
