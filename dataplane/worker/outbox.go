package worker

import (
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/stats"
)

// outbox is the Worker as its Forwarder sees it: the way to the other workers,
// and for what comes in addition to the frames of a batch, to itself.
type outbox Worker

// Emit gives a frame to the worker that sends by an interface, to be sent as it
// is, or counts it as dropped if nobody works that interface.
func (o *outbox) Emit(egress uint16, frame []byte) {
	w := (*Worker)(o)
	if int(egress) >= len(w.peers.Egress) || w.peers.Egress[egress] < 0 {
		w.counters.Drop(stats.NoEgress)
		return
	}
	w.push(w.peers.Egress[egress], frame, handover.Meta{Task: handover.Send})
}

// Pass implements forward.Outbox.
func (o *outbox) Pass(peer int, frame []byte, meta handover.Meta) {
	meta.Task = handover.Decide
	(*Worker)(o).push(peer, frame, meta)
}

// Learn implements forward.Outbox.
func (o *outbox) Learn(backend [16]byte, mtu int) {
	select {
	case o.cfg.PathMTU <- PathMTU{packet.NetipAddr(backend), mtu}:
	default: // more come if the path stays like this
	}
}

// Claim implements forward.Outbox.
func (o *outbox) Claim(addr [16]byte, by packet.MAC, probe bool) {
	select {
	case o.cfg.Claims <- Claim{packet.NetipAddr(addr), by, o.snap.Interfaces[o.cfg.Interface].Name, probe}:
	default: // nobody listens; more come if it goes on
	}
}

// push copies a frame to the worker at an index in peers.All, or counts it as
// dropped.
func (w *Worker) push(peer int, frame []byte, meta handover.Meta) {
	if len(frame) > handover.MaxFrame {
		w.counters.Drop(stats.TooBig)
		return
	}
	if !w.peers.All[peer].Ring.Push(frame, meta) {
		w.counters.Drop(stats.HandoverFull)
		return
	}
	w.counters.HandedOver.Add(len(frame))
	w.wake[peer] = true
}
