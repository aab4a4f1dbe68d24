package forward

import (
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/refuse"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// rejectPort is the verdict on a packet for a port of a VIP that no service
// has: its sender is told, if the VIP is to do so.
func (f *Forwarder) rejectPort(p *packet.Parsed, vip *snapshot.VIP, meta *handover.Meta, frame *queue.Frame) Verdict {
	switch {
	case vip.Policy.Reject == snapshot.RejectSilently || p.Fragment:
		return drop(stats.NoService)
	case vip.Policy.Reject == snapshot.RejectReset && p.Proto == packet.ProtoTCP:
		return f.reset(stats.NoService, p, meta, frame)
	}
	if !refuse.Allowed(p, frame.Bytes()) || !f.refusals.Allow(&p.Src, f.now) || !refuse.PortUnreachable(frame, p) {
		return drop(stats.NoService)
	}
	f.counters.Rejects++
	return f.back(frame, meta)
}

// refused is the verdict on a packet that may not be sent on. The sender of one
// that has come too far is told (RFC 1812 section 5.3.1, RFC 4443 section 3.3).
func (f *Forwarder) refused(reason stats.Reason, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if reason != stats.TTLExpired || !refuse.Allowed(p, frame.Bytes()) ||
		!f.refusals.Allow(&p.Src, f.now) || !refuse.TimeExceeded(frame, p) {
		return drop(reason)
	}
	f.counters.Rejects++
	return f.back(frame, meta)
}

// reset tells the sender of a TCP segment that there is no such connection. If
// it may not be told, the segment is dropped for reason.
func (f *Forwarder) reset(reason stats.Reason, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if !refuse.Allowed(p, frame.Bytes()) || !f.refusals.Allow(&p.Src, f.now) || !refuse.Reset(frame, p) {
		return drop(reason)
	}
	f.counters.Rejects++
	return f.back(frame, meta)
}
