package cluster

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// How soon a node that was killed counts as dead. Every probeInterval one other
// node is probed. Of two or three nodes, the one that was killed is probed within
// 1 or 2 intervals, is suspected an interval later, two if the prober was late
// itself, and has suspicionMult intervals to object: 0.6 to 1.05 s from kill to
// dead. Measured on loopback, 12 times each, on two CPUs with a load of 4: 0.65 s
// with two nodes, 0.75 to 1.05 s with three, 0.65 to 0.9 s with five, and in 70 s
// none of three nodes was taken for dead that was not. A VIP's new owner has to
// ask for 0.3 s then whether anybody has it, and all of that has to be done in 2 s.
//
// What keeps a loaded machine from being taken for dead: a lost packet is made up
// for by two other nodes that ask as well and by a probe over TCP, all within the
// interval; and to be dead a node has to be silent for the whole of the
// suspicion, in which it is told about it with each probe. A node that itself is
// late (memberlist calls it awareness) doubles its interval, no more:
// AwarenessMaxMultiplier is 8 by default, with which a node that once was slow
// would need seconds to see another one die. A node that is taken for dead and is
// not loses nothing: it answers for its VIPs when it is asked for them on the link.
const (
	probeInterval = 150 * time.Millisecond
	probeTimeout  = 100 * time.Millisecond
	suspicionMult = 3

	// suspicionMaxMult: of three or more nodes, one does not wait longer if no
	// other has seen the same. It has asked them to try before it suspects anybody.
	suspicionMaxMult = 1
	awarenessMax     = 2

	gossipInterval   = 50 * time.Millisecond
	pushPullInterval = 2 * time.Second
	streamTimeout    = 2 * time.Second

	// rejoinInterval is the time between two calls to a peer that is not there.
	rejoinInterval = 2 * time.Second
	// strangerInterval is the same for a peer that answers, and calls itself by
	// another address than the configured one.
	strangerInterval = 30 * time.Second

	// sendRetry is the time until a failed sending of state is tried again.
	sendRetry = 250 * time.Millisecond
	// leaveTimeout bounds how long the news of leaving take to spread.
	leaveTimeout = time.Second

	// deadMemory is how long the state of a dead node is kept.
	deadMemory = time.Hour
	// reclaimTime is how long after its death a name may be used from another address.
	reclaimTime = 5 * time.Second
	// conflictMemory is how long a name that was used twice is reported.
	conflictMemory = 30 * time.Second
	// pendingMax bounds the states kept of nodes that are not known (yet).
	pendingMax = 64
)

// timed sets all that has to do with time.
func timed(conf *memberlist.Config) {
	conf.ProbeInterval, conf.ProbeTimeout = probeInterval, probeTimeout
	conf.SuspicionMult, conf.SuspicionMaxTimeoutMult = suspicionMult, suspicionMaxMult
	conf.AwarenessMaxMultiplier = awarenessMax
	conf.IndirectChecks = 2
	conf.GossipInterval, conf.GossipToTheDeadTime = gossipInterval, 30*time.Second
	conf.PushPullInterval = pushPullInterval
	conf.TCPTimeout = streamTimeout
	conf.DeadNodeReclaimTime = reclaimTime
}
