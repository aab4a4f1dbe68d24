package forward_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// guard is how many bytes lie between the buffers of a fuzzed batch.
const guard = 64

// cut splits fuzz input into frames: each one has its length before it, and
// the last one takes what is left. pack is the way back.
func cut(data []byte) [][]byte {
	var frames [][]byte
	for len(data) > 2 && len(frames) < forward.BatchSize {
		n := int(binary.BigEndian.Uint16(data))
		data = data[2:]
		n = min(n, len(data))
		frames = append(frames, data[:n])
		data = data[n:]
	}
	return frames
}

func pack(frames [][]byte) []byte {
	var data []byte
	for _, f := range frames {
		data = binary.BigEndian.AppendUint16(data, uint16(len(f)))
		data = append(data, f...)
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

// FuzzForward feeds batches of arbitrary frames and asserts what holds for all
// of them, whatever they are.
func FuzzForward(f *testing.F) {
	for _, c := range goldenCases() {
		if c.name == "giant" {
			continue
		}
		f.Add(pack(c.frames), uint8(0))
		f.Add(pack(c.frames), uint8(200))
	}
	var every [][]byte
	for _, cases := range [][]goldenCase{dsrCases(), arpCases(), ndpCases(), echoCases()} {
		every = append(every, cases[0].frames...)
	}
	f.Add(pack(every), uint8(8))

	world := worldSnapshot()
	f.Fuzz(func(t *testing.T, data []byte, room uint8) {
		r := newRig(t, 8, world)
		in := cut(data)
		memory, frames := slab(in, int(room))
		before := bytes.Clone(memory)
		given := append([]queue.Frame(nil), frames...)
		verdicts := make([]forward.Verdict, len(frames)+1)
		untouched := forward.Verdict{Action: 77}
		verdicts[len(frames)] = untouched
		r.Process(0, 0, frames, verdicts)

		if verdicts[len(frames)] != untouched {
			t.Fatal("a verdict too many was written")
		}
		var drops [stats.NumReasons]uint64
		sends := uint64(0)
		for i := range frames {
			v := verdicts[i]
			if v.Action == forward.Send {
				sends++
				checkSent(t, world, in[i], &given[i], &frames[i], v)
				continue
			}
			if v.Action != forward.Drop || v.Reason == stats.ReasonNone || v.Reason >= stats.NumReasons {
				t.Fatalf("frame %d: verdict %+v", i, v)
			}
			drops[v.Reason]++
			if frames[i].Start != given[i].Start || frames[i].End != given[i].End {
				t.Fatalf("frame %d was dropped (%v) and moved", i, v.Reason)
			}
			at := bufferAt(given, i)
			if !bytes.Equal(frames[i].Buf, before[at:at+len(frames[i].Buf)]) {
				t.Fatalf("frame %d was dropped (%v) and changed", i, v.Reason)
			}
		}
		checkGuards(t, memory, given)
		checkCounts(t, &r.counters, &drops, sends)
		checkGauges(t, r, 0)
	})
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

func checkCounts(t *testing.T, c *stats.Counters, drops *[stats.NumReasons]uint64, sends uint64) {
	if c.Drops != *drops {
		t.Fatalf("the verdicts say drops %v, the counters say %v", *drops, c.Drops)
	}
	counted := c.ARPReplies + c.NDPReplies + c.EchoReplies
	for i := range c.Backends {
		counted += c.Backends[i].Packets
	}
	if counted != sends {
		t.Fatalf("%d frames sent, %d counted", sends, counted)
	}
}

// checkSent judges a frame that leaves.
func checkSent(t *testing.T, world *snapshot.Snapshot, in []byte, given, f *queue.Frame, v forward.Verdict) {
	if v.Reason != stats.ReasonNone || int(v.Egress) >= len(world.Interfaces) {
		t.Fatalf("verdict %+v", v)
	}
	if f.ID != given.ID || len(f.Buf) != len(given.Buf) || &f.Buf[0] != &given.Buf[0] {
		t.Fatal("the frame's buffer has changed")
	}
	if f.Start > f.End || uint64(f.End) > uint64(len(f.Buf)) {
		t.Fatalf("packet [%d:%d] in a buffer of %d", f.Start, f.End, len(f.Buf))
	}
	out := f.Bytes()
	if packet.Ethernet(out).Src() != world.Interfaces[v.Egress].MAC {
		t.Fatalf("sent from a MAC that is not ours: %x", out)
	}
	var p packet.Parsed
	if p.Decode(out); p.Problem != packet.ProblemNone {
		t.Fatalf("sent a frame that weir itself would not take (%v): %x", p.Problem, out)
	}
	if packettest.CheckWellFormed(in) != nil {
		return
	}
	if err := packettest.CheckWellFormed(out); err != nil {
		t.Fatalf("a well-formed frame\n%x became\n%x: %v", in, out, err)
	}
}
