package ladder

import (
	"fmt"
	"slices"
	"strings"

	"weir/dataplane/forward"
)

// Rung is how much is done to a packet. Each includes those before it, up to
// Hit; the others stand beside.
type Rung string

// The rungs.
const (
	// Restore is the empty loop: packets are made and nothing is done with them.
	Restore Rung = "restore"

	// Parse is packet.Parsed.Decode, packet by packet.
	Parse Rung = "parse"

	// Service is Parse and the service that the packet is for.
	Service Rung = "service"

	// Table is Service and the flow's entry in package flow's table: hashes, all
	// cache lines of the batch at once, look-ups. Nothing is decided or rewritten.
	Table Rung = "flow table"

	// Hit is all that weir does to a packet of a known flow: forward.Process.
	Hit Rung = "hit"

	// Miss is the same for packets each of which begins a flow, in a table that is
	// full, so that another flow has to go. Those are of one packet each.
	Miss Rung = "miss"

	// Worker is Hit in a turn of the worker, on a queue in memory.
	Worker Rung = "worker"

	// Map is what one would write first: Service, a Go map with the flow's backend,
	// and new MAC addresses.
	Map Rung = "go map"

	// Kernel is weir's XDP program, run by the kernel (BPF_PROG_TEST_RUN), without
	// the redirecting itself. Own is the time beyond that of an empty program.
	Kernel Rung = "xdp program"
)

// Rungs returns all rungs.
func Rungs() []Rung { return []Rung{Restore, Parse, Service, Table, Hit, Miss, Worker, Map, Kernel} }

// Protocol is that of the packets.
type Protocol string

// The protocols. A TCP packet is an acknowledgement, and one that begins a flow a
// SYN.
const (
	UDP Protocol = "udp"
	TCP Protocol = "tcp"
)

// Protocols returns all protocols.
func Protocols() []Protocol { return []Protocol{UDP, TCP} }

// Cell is one measurement to make.
type Cell struct {
	Rung      Rung     `json:"rung"`
	Mode      Mode     `json:"mode"` // below Hit only the address family counts
	Protocol  Protocol `json:"protocol"`
	Flows     uint32   `json:"flows"`    // of all services; 0: each packet is another one's
	Services  int      `json:"services"` // each with a VIP
	Backends  int      `json:"backends"` // of each service
	Entries   int      `json:"entries"`  // of the flow table; 0 without one
	Buffers   int      `json:"buffers"`
	Few       bool     `json:"few_buffers"` // so few that packets stay in the innermost caches
	Scattered bool     `json:"scattered"`   // flows come in pseudo-random order, not in turn
	Other     bool     `json:"other"`       // for no VIP
}

func (c Cell) String() string {
	parts := []string{string(c.Rung), string(c.Mode), string(c.Protocol)}
	if c.Rung == Kernel {
		if c.Other {
			parts = append(parts, "for no VIP")
		}
		return strings.Join(parts, " ")
	}
	parts = append(parts, fmt.Sprintf("flows=%d services=%d backends=%d entries=%d buffers=%d", c.Flows, c.Services, c.Backends, c.Entries, c.Buffers))
	if c.Few {
		parts = append(parts, "few")
	}
	if c.Scattered {
		parts = append(parts, "scattered")
	}
	return strings.Join(parts, " ")
}

const (
	// Where something else is varied.
	usualFlows    = 1 << 16
	usualBackends = 100

	// Where services are varied: so that there are not a million backends.
	fewBackends = 4

	// oldFewBuffers are those of the rows with few, in reports that do not mark them.
	oldFewBuffers = 64

	// smallTable is one that fits into the second-level cache, or nearly.
	smallTable = 1 << 16
)

// fewBuffers returns how many stay in the innermost caches. There have to be as
// many as packets in a batch.
func fewBuffers(batch int) int { return max(64, batch) }

// grid returns all cells.
func grid(opt *Options) (cells []Cell) {
	base := Cell{Mode: DSR4, Protocol: UDP, Flows: usualFlows, Services: 1, Backends: usualBackends, Buffers: opt.Buffers}
	add := func(change ...func(*Cell)) {
		c := base
		for _, f := range change {
			f(&c)
		}
		switch c.Rung {
		case Table, Hit, Worker:
			c.Entries = max(opt.Entries, placesPerFlow*int(c.Flows))
		case Miss:
			c.Flows = 0
			if c.Entries == 0 {
				c.Entries = opt.Entries
			}
		case Kernel:
			c = Cell{Rung: Kernel, Mode: c.Mode, Protocol: c.Protocol, Other: c.Other}
		}
		if !slices.Contains(cells, c) {
			cells = append(cells, c)
		}
	}
	at := func(r Rung, m Mode) func(*Cell) { return func(c *Cell) { c.Rung, c.Mode = r, m } }
	tcp := func(c *Cell) { c.Protocol = TCP }
	scattered := func(c *Cell) { c.Scattered = true }
	few := fewBuffers(forward.BatchSize)
	buffers := func(c *Cell) {
		if few < opt.Buffers { // else all rows have as few
			c.Buffers, c.Few = few, true
		}
	}
	for _, m := range []Mode{DSR4, DSR6} {
		add(at(Restore, m))
		add(at(Parse, m))
		add(at(Service, m))
		add(at(Kernel, m))
		add(at(Kernel, m), func(c *Cell) { c.Other = true })
	}
	for _, n := range opt.Flows {
		flows := func(c *Cell) { c.Flows = n }
		add(at(Table, DSR4), flows)
		add(at(Table, DSR6), flows)
		for _, m := range Modes() {
			add(at(Hit, m), flows)
		}
		add(at(Hit, DSR4), tcp, flows)
		add(at(Hit, DSR4), buffers, flows)
		for _, m := range []Mode{DSR4, IPIP4in4, NAT44} {
			add(at(Worker, m), flows)
		}
		add(at(Map, DSR4), flows)
	}
	most := slices.Max(opt.Flows)
	add(at(Hit, DSR4), scattered, func(c *Cell) { c.Flows = most })
	for _, m := range Modes() {
		if !m.answer() {
			add(at(Miss, m))
		}
	}
	add(at(Miss, DSR4), tcp)
	add(at(Miss, DSR4), func(c *Cell) { c.Entries = smallTable })
	for _, r := range []Rung{Service, Hit, Miss} {
		for _, n := range opt.Services {
			add(at(r, DSR4), func(c *Cell) { c.Services, c.Backends = n, fewBackends })
		}
	}
	for _, r := range []Rung{Hit, Miss} {
		for _, n := range opt.Backends {
			add(at(r, DSR4), func(c *Cell) { c.Backends = n })
		}
	}
	return slices.DeleteFunc(cells, func(c Cell) bool { return !opt.wants(c) })
}

// wants tells whether a cell was asked for.
func (opt *Options) wants(c Cell) bool {
	in := func(n int, is bool) bool { return n == 0 || is }
	return in(len(opt.Rungs), slices.Contains(opt.Rungs, c.Rung)) &&
		in(len(opt.Modes), slices.Contains(opt.Modes, c.Mode)) &&
		in(len(opt.Protocols), slices.Contains(opt.Protocols, c.Protocol))
}

// placesPerFlow is how many entries of the flow table there are for each flow, at
// least: with fewer, not all fit (see flow.New).
const placesPerFlow = 4
