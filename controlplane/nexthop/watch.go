package nexthop

import (
	"net/netip"
	"slices"
	"time"
)

// The kernel trusts an answer for half a minute (base_reachable_time_ms). A
// server whose address another one takes over quietly, as a virtual machine
// that is made anew does, would be lost for as long. So every neighbour that a
// hop uses is polled: first with a frame to the MAC that is known, which nobody
// else is disturbed by (RFC 1122 section 2.3.2.1 "unicast poll", RFC 4861
// section 7.3.3), and when that is not answered, with a frame to everybody. What
// an answer means is the kernel's business: it sees it too and notifies.
const (
	// slot is the grain of the polling. Each neighbour has its slot in the
	// round, so that they are not asked all at once.
	slot = 50 * time.Millisecond

	// roundSlots × slot is how often a neighbour is polled, and patienceSlots
	// × slot how long it has to answer. Together with the time that it takes
	// to work a change in, they make up the second within which another MAC
	// has to be in use.
	roundSlots    = 12
	patienceSlots = 4

	// doubtAfter is how many rounds in a row a neighbour may be silent to
	// both questions until the kernel is made to look into it.
	doubtAfter = 3
)

// question is a frame that asks for the owner of an address.
type question struct {
	neighKey
	to     MAC        // who is asked; zero for everybody
	from   MAC        // of the interface it leaves by
	source netip.Addr // likewise; of the family of addr
}

// answer is what a frame says in reply.
type answer struct {
	neighKey
	mac MAC // of the owner of addr; zero if it does not say
}

// wire is where questions are asked. One goroutine calls it.
type wire interface {
	// Ask sends a question, and says whether it has.
	Ask(question) bool

	// Heard calls f with all answers that have come since it was last
	// called. It does not wait.
	Heard(f func(answer))

	// Tidy closes what was not used since it was last called, and has what
	// failed tried again.
	Tidy()

	// Close closes everything.
	Close()
}

// watched is a neighbour that is polled.
type watched struct {
	question      // to is the MAC that the kernel knows
	open     bool // asked in its last slot and not answered yet
	silent   int  // rounds in a row without an answer
	wanted   bool
}

// watch decides who is polled when. It does no I/O and reads no clock.
type watch struct {
	neighbours map[neighKey]*watched
	slots      [roundSlots][]*watched
	now        int // index of the current slot
}

func newWatch() *watch { return &watch{neighbours: map[neighKey]*watched{}} }

// want has a neighbour polled, until the second sweep from now. Of several wishes
// for one neighbour between two sweeps, the first counts.
func (w *watch) want(q question) {
	n := w.neighbours[q.neighKey]
	if n == nil {
		n = &watched{question: q}
		w.neighbours[q.neighKey] = n
		emptiest := 0
		for i := range w.slots {
			if len(w.slots[i]) < len(w.slots[emptiest]) {
				emptiest = i
			}
		}
		w.slots[emptiest] = append(w.slots[emptiest], n)
	}
	if !n.wanted && n.question != q {
		n.question, n.open, n.silent = q, false, 0
	}
	n.wanted = true
}

// sweep ends the polling of all that are not wanted.
func (w *watch) sweep() {
	for i := range w.slots {
		w.slots[i] = slices.DeleteFunc(w.slots[i], func(n *watched) bool {
			if !n.wanted {
				delete(w.neighbours, n.neighKey)
				return true
			}
			n.wanted = false
			return false
		})
	}
}

// heard works an answer in. One that names another MAC than the one in use is
// none: either the kernel takes it over, or it has to be asked again.
func (w *watch) heard(a answer) {
	if n := w.neighbours[a.neighKey]; n != nil && (a.mac == MAC{} || a.mac == n.to) {
		n.open, n.silent = false, 0
	}
}

// tick goes on to the next slot. It calls ask with what is to be asked in it,
// and doubt for those who have been silent for long. A question that could not
// be sent, for which ask is false, counts as answered.
func (w *watch) tick(ask func(question) bool, doubt func(neighKey)) {
	w.now = (w.now + 1) % roundSlots
	for _, n := range w.slots[(w.now+roundSlots-patienceSlots)%roundSlots] {
		if n.open {
			q := n.question
			q.to = MAC{}
			ask(q)
		}
	}
	for _, n := range w.slots[w.now] {
		if n.open {
			n.silent++
		}
		if n.silent == doubtAfter {
			n.silent = 0
			doubt(n.neighKey)
		}
		n.open = ask(n.question)
	}
}
