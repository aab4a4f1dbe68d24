package forward_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// guard is how many bytes lie between the buffers of a fuzzed batch.
const guard = 64

// onEth1 is set in the length of a frame that comes in on eth1.
const onEth1 = 1 << 15

// cut splits fuzz input into steps: each frame has its length before it, with a
// bit for the interface, and the last one takes what is left. pack is the way
// back.
func cut(data []byte) []step {
	var steps []step
	for len(data) > 2 && len(steps) < forward.BatchSize {
		head := binary.BigEndian.Uint16(data)
		data = data[2:]
		n := min(int(head&^onEth1), len(data))
		steps = append(steps, step{ingress: head >> 15, frame: data[:n]})
		data = data[n:]
	}
	return steps
}

func pack(steps []step) []byte {
	var data []byte
	for _, s := range steps {
		data = binary.BigEndian.AppendUint16(data, uint16(len(s.frame))|s.ingress<<15)
		data = append(data, s.frame...)
	}
	return data
}

// slab lays frames out as in a UMEM, with guards between them. room is how many
// bytes each buffer has behind its packet.
func slab(in [][]byte, room int) (memory []byte, frames []queue.Frame) {
	size := guard
	for _, f := range in {
		size += queue.Headroom + len(f) + room + guard
	}
	memory = bytes.Repeat([]byte{0xee}, size)
	at := guard
	for i, f := range in {
		end := at + queue.Headroom + len(f) + room
		buf := memory[at:end:end]
		copy(buf[queue.Headroom:], f)
		frames = append(frames, queue.Frame{
			Buf: buf, Start: queue.Headroom, End: uint32(queue.Headroom + len(f)), ID: uint64(i),
		})
		at = end + guard
	}
	return memory, frames
}

// fuzzWorlds are the worlds that frames are fuzzed in.
func fuzzWorlds() []func(*nat.Space) *snapshot.Snapshot {
	return []func(*nat.Space) *snapshot.Snapshot{natWorld, sharedWorld, plainWorld, rareWorld, silentWorld}
}

// opened is a packet of a flow for each NAT service, so that answers and errors
// have something to be about. There is one SNAT port, so all look as in the
// golden cases.
func opened() []step {
	var all []step
	for _, v := range natVariants() {
		all = append(all, in(packettest.Frame(to(v.vip))), in(packettest.Frame(udpTo(v.vip))))
	}
	return all
}

func seedForward(add func(data []byte, room, world uint8)) {
	for i, c := range goldenCases() {
		if c.name != "giant" {
			add(pack(c.steps), uint8(i%2*200), 0)
		}
	}
	var every []step
	for _, cases := range [][]goldenCase{dsrCases(), arpCases(), ndpCases(), echoCases(), natCases(), fragmentCases(), silentCases(), memberCases()} {
		every = append(every, cases[0].steps...)
	}
	for world := range fuzzWorlds() {
		add(pack(every), 8, uint8(world))
	}
}

// FuzzForward feeds batches of arbitrary frames and asserts what holds for all
// of them, whatever they are.
func FuzzForward(f *testing.F) {
	seedForward(func(data []byte, room, world uint8) { f.Add(data, room, world) })
	f.Fuzz(func(t *testing.T, data []byte, room, world uint8) {
		var snap *snapshot.Snapshot
		r := newRigIn(t, 32, func(space *nat.Space) *snapshot.Snapshot {
			snap = fuzzWorlds()[int(world)%len(fuzzWorlds())](space)
			return snap
		})
		for _, s := range opened() {
			r.all(s.ingress, s.frame, 0)
		}
		before := totals(r.report())
		checked := tally{start: before}
		for steps := cut(data); len(steps) > 0; {
			n := 1
			for n < len(steps) && steps[n].ingress == steps[0].ingress {
				n++
			}
			checked.batch(t, r, steps[0].ingress, frameList(steps[:n]), int(room))
			steps = steps[n:]
		}
		checked.check(t, r.report())
		checkGauges(t, r, 0)
		for _, c := range r.claimed {
			if a := c.addr.As16(); snap.VIP(&a) == nil {
				t.Fatalf("told that %s is claimed, which is not weir's", c.addr)
			}
		}
	})
}

func frameList(steps []step) [][]byte {
	var frames [][]byte
	for _, s := range steps {
		frames = append(frames, s.frame)
	}
	return frames
}

// tally counts what the verdicts say, to be compared with the counters.
type tally struct {
	start sums
	drops [stats.NumReasons]uint64
	sends uint64
}

// sums are counters that each frame sent is in one of, but that some of the
// errors passed on are in two.
type sums struct {
	drops  [stats.NumReasons]uint64
	sent   uint64
	errors uint64
}

func totals(c *stats.Counters) sums {
	s := sums{drops: c.Drops, errors: c.ErrorsRelayed}
	s.sent = c.ARPReplies + c.NDPReplies + c.EchoReplies + c.PathMTUAnswers + c.Rejects + c.Spread.Packets
	for i := range c.Backends {
		s.sent += c.Sent[i].Packets + c.Backends[i].Answers.Packets
	}
	return s
}

func (a *tally) check(t *testing.T, c *stats.Counters) {
	now := totals(c)
	for r := range now.drops {
		if got := now.drops[r] - a.start.drops[r]; got != a.drops[r] {
			t.Fatalf("the verdicts say %d dropped as %v, the counters say %d", a.drops[r], stats.Reason(r), got)
		}
	}
	sent, errors := now.sent-a.start.sent, now.errors-a.start.errors
	if a.sends < sent || a.sends > sent+errors {
		t.Fatalf("%d frames sent, %d counted and %d errors", a.sends, sent, errors)
	}
}

// batch processes frames that came in on one interface, and all that the worker
// passes to itself because of them.
func (a *tally) batch(t *testing.T, r *rig, ingress uint16, in [][]byte, room int) {
	wellFormed := true // all that a passed frame may be made of
	for _, f := range in {
		wellFormed = wellFormed && packettest.CheckWellFormed(f) == nil
	}
	a.decided(t, in, room, wellFormed, func(frames []queue.Frame, verdicts []forward.Verdict) {
		r.Process(ingress, 0, frames, verdicts)
	})
	for n := 0; len(r.passed) > 0; n++ {
		if n > 10_000 {
			t.Fatal("frames go round and round")
		}
		next := r.passed[0]
		r.passed = r.passed[1:]
		if next.peer != 0 {
			t.Fatalf("a frame for worker %d, which is not there", next.peer)
		}
		a.decided(t, [][]byte{next.frame}, room, wellFormed, func(frames []queue.Frame, verdicts []forward.Verdict) {
			r.Decide([]handover.Meta{next.meta}, 0, frames, verdicts)
		})
	}
}

func (a *tally) decided(t *testing.T, in [][]byte, room int, wellFormed bool, decide func([]queue.Frame, []forward.Verdict)) {
	memory, frames := slab(in, room)
	before := bytes.Clone(memory)
	given := append([]queue.Frame(nil), frames...)
	verdicts := make([]forward.Verdict, len(frames)+1)
	untouched := forward.Verdict{Action: 77}
	verdicts[len(frames)] = untouched
	decide(frames, verdicts)
	if verdicts[len(frames)] != untouched {
		t.Fatal("a verdict too many was written")
	}
	for i := range frames {
		v := verdicts[i]
		switch v.Action {
		case forward.Send:
			a.sends++
			checkSent(t, in[i], wellFormed, &given[i], &frames[i], v)
			continue
		case forward.Taken:
			if v != (forward.Verdict{Action: forward.Taken}) {
				t.Fatalf("frame %d: verdict %+v", i, v)
			}
		case forward.Drop:
			if v.Reason == stats.ReasonNone || v.Reason >= stats.NumReasons {
				t.Fatalf("frame %d: verdict %+v", i, v)
			}
			a.drops[v.Reason]++
		default:
			t.Fatalf("frame %d: verdict %+v", i, v)
		}
		if frames[i].Start != given[i].Start || frames[i].End != given[i].End {
			t.Fatalf("frame %d was not sent (%v) and moved", i, v.Reason)
		}
		at := bufferAt(given, i)
		if !bytes.Equal(frames[i].Buf, before[at:at+len(frames[i].Buf)]) {
			t.Fatalf("frame %d was not sent (%v) and changed", i, v.Reason)
		}
	}
	checkGuards(t, memory, given)
}

// bufferAt returns where buffer i of a slab begins.
func bufferAt(frames []queue.Frame, i int) int {
	at := guard
	for _, f := range frames[:i] {
		at += len(f.Buf) + guard
	}
	return at
}

func checkGuards(t *testing.T, memory []byte, frames []queue.Frame) {
	for i := range len(frames) + 1 {
		at := bufferAt(frames, i) - guard
		for _, b := range memory[at : at+guard] {
			if b != 0xee {
				t.Fatalf("bytes before buffer %d were written", i)
			}
		}
	}
}

// checkSent judges a frame that leaves.
func checkSent(t *testing.T, in []byte, wellFormed bool, given, f *queue.Frame, v forward.Verdict) {
	if v.Reason != stats.ReasonNone || int(v.Egress) >= len(interfaces()) {
		t.Fatalf("verdict %+v", v)
	}
	if f.ID != given.ID || len(f.Buf) != len(given.Buf) || &f.Buf[0] != &given.Buf[0] {
		t.Fatal("the frame's buffer has changed")
	}
	if f.Start > f.End || uint64(f.End) > uint64(len(f.Buf)) {
		t.Fatalf("packet [%d:%d] in a buffer of %d", f.Start, f.End, len(f.Buf))
	}
	out := f.Bytes()
	if packet.Ethernet(out).Src() != interfaces()[v.Egress].MAC {
		t.Fatalf("sent from a MAC that is not ours: %x", out)
	}
	var p packet.Parsed
	if p.Decode(out); p.Problem != packet.ProblemNone {
		t.Fatalf("sent a frame that weir itself would not take (%v): %x", p.Problem, out)
	}
	if !wellFormed {
		return
	}
	if err := packettest.CheckWellFormed(out); err != nil {
		t.Fatalf("a well-formed frame\n%x became\n%x: %v", in, out, err)
	}
}

// FuzzPeers gives arbitrary frames to any of two workers, and asserts that
// nothing goes round and round, that what is sent is well-formed if all of what
// came in was, and that both know in the end what they have.
func FuzzPeers(f *testing.F) {
	seedForward(func(data []byte, room, world uint8) {
		f.Add(data, uint64(room), world)
	})
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, world uint8) {
		m := newMachine(t, 2, 32, rand.New(rand.NewPCG(seed, 1)))
		m.adopt(fuzzWorlds()[int(world)%len(fuzzWorlds())](m.space))
		steps := cut(data)
		wellFormed := true
		for _, s := range append(opened(), steps...) {
			m.put(m.any(), s.ingress, s.frame)
			for range m.rng.IntN(4) {
				m.move()
			}
			wellFormed = wellFormed && packettest.CheckWellFormed(s.frame) == nil
		}
		for _, f := range m.settle() {
			if err := packettest.CheckWellFormed(f.frame); wellFormed && err != nil {
				t.Fatalf("sent %x: %v", f.frame, err)
			}
			if packet.Ethernet(f.frame).Src() != interfaces()[f.egress].MAC {
				t.Fatalf("sent from a MAC that is not ours: %x", f.frame)
			}
		}
		m.check(t)
	})
}
