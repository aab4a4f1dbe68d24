package ladder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// Sample is one measurement, in pairs of slices: restoring, and everything. Times
// are medians of the pairs, in ns per packet; in earlier reports, which have no
// pairs, means of all slices.
type Sample struct {
	Cell
	Round   int     `json:"round"`
	Packets uint64  `json:"packets"` // with everything
	Pairs   int     `json:"pairs"`
	Gross   float64 `json:"gross_ns"`
	Restore float64 `json:"restore_ns"`
	Paired  float64 `json:"own_ns"` // gross without restoring, in each pair
}

// newSample returns the sample of what was measured.
func newSample(c Cell, f figures) Sample {
	return Sample{Cell: c, Packets: f.packets, Pairs: f.pairs, Gross: f.gross, Restore: f.restore, Paired: f.own}
}

// Own is what is left without restoring.
func (s *Sample) Own() float64 {
	switch {
	case s.Rung == Restore:
		return s.Gross
	case s.Pairs > 0:
		return s.Paired
	}
	return s.Gross - s.Restore
}

// rig is what one measurement runs on.
type rig struct {
	stream
	cell    Cell
	frames  [forward.BatchSize]queue.Frame
	loop    loop // of batches
	step    step // what loop does with a batch; not of the worker, which has its own
	snap    *snapshot.Snapshot
	space   *nat.Space
	flows   *flow.Table // nil without one
	count   func() (counts, error)
	closers []func() error
}

// step does what a rung is about to a batch.
type step func(frames []queue.Frame)

// counts say whether a rung did what it is said to do.
type counts struct {
	packets uint64 // with which something was done
	known   uint64 // of flows that were known before
	dropped uint64
}

// newRig makes what a cell needs, with all flows in the table.
func (l *ladder) newRig(c Cell) (r *rig, err error) {
	r = &rig{cell: c, space: nat.NewSpace()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.buffers, err = newBuffers(c.Buffers, forward.BatchSize); err != nil {
		return r, err
	}
	r.closers = append(r.closers, r.buffers.close)
	if r.snap, err = l.snapshot(c.Mode, c.Services, c.Backends, r.space); err != nil {
		return r, err
	}
	if c.Entries > 0 {
		if r.flows, err = flow.New(c.Entries, flow.DefaultTimeouts()); err != nil {
			return r, err
		}
		r.closers = append(r.closers, r.flows.Close)
	}
	r.loop = r.alone
	switch c.Rung {
	case Restore:
		r.nothing()
	case Parse:
		r.parse()
	case Service:
		r.service()
	case Table:
		r.table()
	case Map:
		r.naive()
	case Hit, Miss:
		r.forward()
	case Worker:
		err = r.worker(l.opt.CPU)
	default:
		err = fmt.Errorf("no rung %q", c.Rung)
	}
	if err != nil {
		return r, err
	}
	return r, r.open()
}

func (r *rig) close() (err error) {
	for i := len(r.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, r.closers[i]())
	}
	r.closers = nil
	return err
}

// alone is the loop of all rungs but the worker.
func (r *rig) alone(batches int, restore bool) (time.Duration, error) {
	start := threadTime()
	if restore {
		r.restore(&r.frames, batches)
	} else {
		for range batches {
			r.restore(&r.frames, 1)
			r.step(r.frames[:])
		}
	}
	return threadTime() - start, nil
}

// clients returns what makes clients' packets with these TCP flags.
func (r *rig) clients(flags uint8) *clients {
	v6 := r.cell.Mode.client6()
	t := newTemplate(weirMAC, clientMAC, address(v6, clientNet, 0), vipOf(v6, 0), r.cell.Protocol, flags)
	return newClients(t, servicePort, r.cell)
}

// open brings the rig to where it is measured: with all flows in the table and
// each trusted, or, if there are only new ones, with the table full.
func (r *rig) open() error {
	all := (int(r.cell.Flows) + forward.BatchSize - 1) / forward.BatchSize
	if r.cell.Flows == 0 {
		r.fill = r.clients(packet.TCPSyn)
		if r.flows == nil {
			return nil
		}
		_, err := r.loop(2*r.flows.Cap()/forward.BatchSize, false)
		return err
	}
	for _, flags := range []uint8{packet.TCPSyn, packet.TCPAck} {
		r.fill = r.clients(flags)
		if r.cell.Entries == 0 && r.cell.Rung != Map {
			continue // nothing is remembered
		}
		if _, err := r.loop(all, false); err != nil {
			return err
		}
	}
	if !r.cell.Mode.answer() {
		return nil
	}
	return r.turnRound(all)
}

// turnRound has the backends' answers come instead of the clients' packets. How
// they look is told by what the clients' packets look like at the backends.
func (r *rig) turnRound(batches int) error {
	v6 := r.cell.Mode.backend6()
	a := &answers{template: newTemplate(weirMAC, backendMAC(0), backendOf(v6, 0), address(v6, snatNet, 0), r.cell.Protocol, packet.TCPAck)}
	for range batches {
		r.restore(&r.frames, 1)
		r.step(r.frames[:])
		for i := range r.frames {
			if b := r.frames[i].Bytes(); packet.Ethernet(b).Src() == weirMAC { // else it was dropped
				a.keys = append(a.keys, answerTo(b, v6))
			}
		}
	}
	if lost := batches*forward.BatchSize - len(a.keys); lost > batches*forward.BatchSize/tolerated {
		return fmt.Errorf("%d of %d packets were dropped", lost, batches*forward.BatchSize)
	}
	a.keys = a.keys[:min(len(a.keys), int(r.cell.Flows))]
	r.fill = a
	return nil
}

// answerTo returns what tells the answer to a frame that a backend was sent.
func answerTo(f []byte, v6 bool) key {
	ip := f[packet.EthernetLen:]
	src, dst, l4 := 14, 18, packet.IPv4MinLen
	if v6 {
		src, dst, l4 = 22, 38, packet.IPv6Len
	}
	word := func(at int) uint16 { return binary.BigEndian.Uint16(ip[at:]) }
	return key{src: word(dst), dst: word(src), srcPort: word(l4 + 2), dstPort: word(l4)}
}

const (
	// tolerated is 1 in how many packets may be something else than what its rung is
	// about: of a flow that did not fit, say.
	tolerated = 200

	// fewestBatches is how many are measured at once, at least.
	fewestBatches = 16

	longestSlice = 2500 * time.Microsecond
)

// measure measures for a time of the thread.
func (r *rig) measure(window time.Duration) (Sample, error) {
	m := meter{loop: r.loop, packets: forward.BatchSize, fewest: fewestBatches, longest: longestSlice}
	if err := m.calibrate(window); err != nil {
		return Sample{}, err
	}
	before, err := r.count()
	if err != nil {
		return Sample{}, err
	}
	f, err := m.measure(window)
	if err != nil {
		return Sample{}, err
	}
	after, err := r.count()
	if err != nil {
		return Sample{}, err
	}
	s := newSample(r.cell, f)
	return s, r.check(s.Packets, counts{after.packets - before.packets, after.known - before.known, after.dropped - before.dropped})
}

// check fails if the packets were not what the cell says.
func (r *rig) check(packets uint64, c counts) error {
	few := packets / tolerated
	switch {
	case c.packets != packets:
		return fmt.Errorf("%d packets were made, and something was done with %d", packets, c.packets)
	case c.dropped > few:
		return fmt.Errorf("%d of %d packets were dropped", c.dropped, packets)
	case r.cell.Rung == Miss && c.known > few:
		return fmt.Errorf("%d of %d packets were of known flows", c.known, packets)
	case r.cell.remembers() && c.known < packets-few:
		return fmt.Errorf("%d of %d packets were of known flows", c.known, packets)
	}
	return nil
}

// remembers tells whether all packets are of known flows.
func (c *Cell) remembers() bool {
	switch c.Rung {
	case Table, Hit, Worker, Map:
		return true
	}
	return false
}

// countsOf returns what the forwarder's counters say. A flow that is decided is
// counted for its backend, with or without an entry.
func countsOf(c *stats.Counters, packets uint64) counts {
	n := counts{packets: packets, known: packets}
	for i := range c.Backends {
		n.known -= c.Backends[i].NewFlows
	}
	for _, dropped := range c.Drops {
		n.dropped += dropped
	}
	return n
}

// nowhere is an Outbox that nothing should come to.
type nowhere struct{ passed uint64 }

func (n *nowhere) Pass(int, []byte, handover.Meta)  { n.passed++ }
func (n *nowhere) Learn([16]byte, int)              { n.passed++ }
func (n *nowhere) Claim([16]byte, packet.MAC, bool) { n.passed++ }
