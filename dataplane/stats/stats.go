// Package stats holds what a worker counts: frames in and out, why frames were
// dropped, and what each backend was sent.
//
// The problem it solves: counters are written for every packet and read once a
// second. So they are plain integers that one worker owns and writes; whoever
// wants to read them asks the worker for a copy (see package worker), and no
// atomic operation is spent on a packet.
package stats

import "time"

// Traffic counts packets and their bytes, Ethernet header included and frame
// check sequence not.
type Traffic struct {
	Packets uint64
	Bytes   uint64
}

// Add counts one packet of n bytes.
func (t *Traffic) Add(n int) {
	t.Packets++
	t.Bytes += uint64(n)
}

// Backend counts what became of one backend slot of the snapshot. What it was sent is in
// Counters.Sent.
type Backend struct {
	Answers    Traffic // from it, under NAT
	NewFlows   uint64  // flows decided for it, since the slot was given to it
	Flows      int64   // flows in the table now
	Generation uint32  // which user of the slot these counts are of

	// What becomes of TCP connections, for as long as they are in the table. Of
	// those that are not (too many new ones, no room) nothing is known.
	Opened      uint64 // entries made for a SYN
	Established uint64 // of those, the ones whose client went on from its SYN: it was answered
	Retries     uint64 // SYNs sent again before that
	Resets      uint64 // connections that the backend reset, refused ones among them; only NAT sees it

	_ [8]byte // so that Answers are in one cache line
}

// Counters are one worker's counts since it was started. The worker writes
// them and nobody else touches them.
type Counters struct {
	Received    Traffic // frames taken from the queue
	Transmitted Traffic // frames the queue accepted, those of other workers included
	HandedOver  Traffic // frames given to another worker, or to itself once more
	Spread      Traffic // frames given to other nodes, whose flows they are of
	Drops       [NumReasons]uint64

	ARPReplies  uint64
	NDPReplies  uint64
	EchoReplies uint64

	PathMTUAnswers uint64 // senders told that their packet is too big for the way to the backend
	Rejects        uint64 // senders told that no service has the port, or NAT the flow, or that no hop is left
	ErrorsRelayed  uint64 // ICMP errors given to the backend or client they are about
	Fragmented     uint64 // packets taken apart because they were too long to be sent whole
	FragmentsHeld  uint64 // fragments that had to wait for the first one of their datagram
	PathMTULearned uint64 // packet-too-big messages about weir's own packets to backends

	FlowsEvicted          uint64 // trusted, and pushed out of the table by a newer one
	FlowsUntrustedEvicted uint64 // not shown to be more than an opening, and pushed out
	FlowsExpired          uint64 // idle for longer than their time-out, or over and opened anew
	FlowsRefused          uint64 // new flows the table had no room for
	FlowsUnrecorded       uint64 // new flows above the rate at which entries are made

	NATFlows     int64  // flows with a SNAT port now
	NATTakenOver uint64 // flows that were over, or no more than an opening, and lost their SNAT port to a new one

	Wakeups uint64 // times the worker came back from sleeping in poll(2)

	// How long the worker was away from its queue: batches that took longer than a
	// millisecond, as it had lost its CPU or the kernel held it up, and the longest one.
	Pauses  uint64
	Longest time.Duration

	// By backend slot.
	Backends []Backend
	Sent     []Traffic // towards them, in a copy; while the worker runs its Forwarder has it (Forwarder.Sent)
}

// Reset sets all counts to nothing, and the number of slots. Their memory is kept.
func (c *Counters) Reset() { *c = Counters{Sent: c.Sent[:0], Backends: c.Backends[:0]} }

// Drop counts a frame dropped for reason.
func (c *Counters) Drop(reason Reason) { c.Drops[reason]++ }

// Turn counts how long a batch took; one above pause is one.
func (c *Counters) Turn(took, pause time.Duration) {
	if took > c.Longest {
		c.Longest = took
	}
	if took > pause {
		c.Pauses++
	}
}

// AddTo adds all counts to sum, slot by slot. A slot that sum counts for
// another generation is taken over by the newer of the two.
func (c *Counters) AddTo(sum *Counters) {
	sum.Received.add(c.Received)
	sum.Transmitted.add(c.Transmitted)
	sum.HandedOver.add(c.HandedOver)
	sum.Spread.add(c.Spread)
	for i := range c.Drops {
		sum.Drops[i] += c.Drops[i]
	}
	sum.ARPReplies += c.ARPReplies
	sum.NDPReplies += c.NDPReplies
	sum.EchoReplies += c.EchoReplies
	sum.PathMTUAnswers += c.PathMTUAnswers
	sum.Rejects += c.Rejects
	sum.ErrorsRelayed += c.ErrorsRelayed
	sum.Fragmented += c.Fragmented
	sum.FragmentsHeld += c.FragmentsHeld
	sum.PathMTULearned += c.PathMTULearned
	sum.FlowsEvicted += c.FlowsEvicted
	sum.FlowsUntrustedEvicted += c.FlowsUntrustedEvicted
	sum.FlowsExpired += c.FlowsExpired
	sum.FlowsRefused += c.FlowsRefused
	sum.FlowsUnrecorded += c.FlowsUnrecorded
	sum.NATFlows += c.NATFlows
	sum.NATTakenOver += c.NATTakenOver
	sum.Wakeups += c.Wakeups
	sum.Pauses += c.Pauses
	sum.Longest = max(sum.Longest, c.Longest)
	if n := len(c.Backends) - len(sum.Backends); n > 0 {
		sum.Sent = append(sum.Sent, make([]Traffic, n)...)
		sum.Backends = append(sum.Backends, make([]Backend, n)...)
	}
	for i := range c.Backends {
		b, other := &sum.Backends[i], &c.Backends[i]
		switch {
		case other.Generation < b.Generation:
			continue
		case other.Generation > b.Generation:
			*b, sum.Sent[i] = *other, c.Sent[i]
			continue
		}
		b.add(other)
		sum.Sent[i].add(c.Sent[i])
	}
}

func (t *Traffic) add(o Traffic) {
	t.Packets += o.Packets
	t.Bytes += o.Bytes
}

func (b *Backend) add(o *Backend) {
	b.Answers.add(o.Answers)
	b.NewFlows += o.NewFlows
	b.Flows += o.Flows
	b.Opened += o.Opened
	b.Established += o.Established
	b.Retries += o.Retries
	b.Resets += o.Resets
}
