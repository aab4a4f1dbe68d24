package connections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/perf/measure"
)

// Cell is one measurement: of one subject, under one load, once. All but the
// account is of the window.
type Cell struct {
	Subject Subject `json:"subject"`
	Load    Load    `json:"load"`
	Round   int     `json:"round"`

	Seconds   float64 `json:"seconds"`
	Answered  uint64  `json:"answered"`         // connections
	PerSecond float64 `json:"per_second"`       // of these
	Late      uint64  `json:"late"`             // that could not be opened when they were due, paced
	Process   float64 `json:"process_seconds"`  // CPU of the subject's process, for each connection
	Kernel    float64 `json:"kernel_seconds"`   // CPU of the kernel for what comes to the subject, likewise
	Delivery  float64 `json:"delivery_seconds"` // CPU of the kernel for what the subject has sent, likewise
	Busy      float64 `json:"busy"`             // share of time in which the subject's core was not idle
	Others    float64 `json:"others"`           // share of time in which it did none of these: what disturbs
	Clients   float64 `json:"clients_busy"`     // share of time in which the core of clients and backends was not idle

	Median  float64 `json:"median_seconds"` // from when a connection was due to its end
	P99     float64 `json:"p99_seconds"`    // likewise, of 99 in a hundred
	Memory  uint64  `json:"memory"`         // resident bytes of the process
	Account Account `json:"account"`
}

// CPU returns seconds of CPU for each connection, without delivery, which is
// its neighbours' work.
func (c *Cell) CPU() float64 { return c.Process + c.Kernel }

// Account is what has become of all connections of a cell, warm-up included.
type Account struct {
	Opened    uint64            `json:"opened"`
	Answered  []uint64          `json:"answered"` // by backend, as clients say
	Served    []uint64          `json:"served"`   // by backend, as backends say
	Failed    map[string]uint64 `json:"failed"`   // by reason
	FramesIn  uint64            `json:"frames_in"`
	FramesOut uint64            `json:"frames_out"` // that came from the balancer
}

func (a *Account) failed() (n uint64) {
	for _, m := range a.Failed {
		n += m
	}
	return n
}

// Frames of a connection that is answered, at the least: SYN, an acknowledgement,
// the byte and FIN from the client, and SYN, the byte and FIN to it.
const (
	framesThere = 4
	framesBack  = 3
)

// stray is how many frames, of neighbour discovery and the like, may come to a
// balancer that nobody asks.
const stray = 100

// check fails if this cannot be what a subject has done, whatever it is worth: a
// figure of it would be wrong. Connections that have failed are no such thing.
func (a *Account) check(subject Subject) error {
	answered, served, failed := uint64(0), uint64(0), a.failed()
	for i, n := range a.Answered {
		answered, served = answered+n, served+a.Served[i]
		if n > a.Served[i] {
			return fmt.Errorf("clients have %d answers of backend %d, which has given %d", n, i, a.Served[i])
		}
	}
	if answered+failed != a.Opened {
		return fmt.Errorf("%d connections were opened, %d answered, and %d have failed", a.Opened, answered, failed)
	}
	if served-answered > failed {
		return fmt.Errorf("backends have answered %d connections, clients know of %d and of %d that have failed", served, answered, failed)
	}
	in, out := uint64(framesThere), uint64(framesThere+framesBack)
	switch {
	case subject == Direct:
		if n := a.FramesIn + a.FramesOut; n > stray && n >= answered {
			return fmt.Errorf("%d frames went by a balancer that nobody was to ask, of %d connections", n, answered)
		}
		return nil
	case subject.direct():
		out = framesThere
	default:
		in = framesThere + framesBack
	}
	if a.FramesIn < in*answered || a.FramesOut < out*answered {
		return fmt.Errorf("%d frames went to the balancer and %d came from it, too few for %d connections", a.FramesIn, a.FramesOut, answered)
	}
	return nil
}

// moment is all there is to read, at one time.
type moment struct {
	at      time.Time
	clients clientCounts
	usage   usage
}

func (r *rig) read(ctx context.Context) (m moment, err error) {
	if err := r.clients.Ask(ctx, askStatus, &m.clients); err != nil {
		return m, err
	}
	m.at = time.Now()
	m.usage, err = r.cores.usage(r.subject.pid)
	return m, err
}

// measure fills the cell.
func (c *Cell) measure(ctx context.Context, opt *Options) (err error) {
	r, err := newRig(ctx, opt, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := measure.Sleep(ctx, max(opt.Window/4, 100*time.Millisecond)); err != nil {
		return err
	}
	before, err := r.read(ctx)
	if err != nil {
		return err
	}
	if err := measure.Sleep(ctx, opt.Window); err != nil {
		return err
	}
	after, err := r.read(ctx)
	if err != nil {
		return err
	}
	if r.subject.pid != 0 {
		if c.Memory, err = measure.ResidentMemory(r.subject.pid); err != nil {
			return err
		}
	}
	c.between(&before, &after)
	return c.finish(ctx, opt, r)
}

func (c *Cell) between(before, after *moment) {
	seconds := after.at.Sub(before.at).Seconds()
	used := after.usage.since(before.usage)
	took := after.clients.Took.Since(&before.clients.Took)
	c.Seconds = seconds
	c.Answered = after.clients.answered() - before.clients.answered()
	c.PerSecond = float64(c.Answered) / seconds
	c.Late = after.clients.Late - before.clients.Late
	if c.Answered > 0 {
		c.Process = used.process.Seconds() / float64(c.Answered)
		c.Kernel = used.kernel.Seconds() / float64(c.Answered)
		c.Delivery = used.delivery.Seconds() / float64(c.Answered)
	}
	c.Busy = 1 - min(used.idle.Seconds()/seconds, 1)
	c.Others = max(c.Busy-(used.process+used.kernel+used.delivery).Seconds()/seconds, 0)
	c.Clients = 1 - min(used.others.Seconds()/seconds, 1)
	c.Median, c.P99 = took.Percentile(50).Seconds(), took.Percentile(99).Seconds()
}

// finish has clients end what they have begun, and adds up.
func (c *Cell) finish(ctx context.Context, opt *Options, r *rig) (err error) {
	var clients clientCounts
	if err := r.clients.AskWithin(ctx, opt.Patience+measure.StopGrace, askFinish, &clients); err != nil {
		return fmt.Errorf("end clients: %w", err)
	}
	c.Account = Account{Opened: clients.Opened, Answered: clients.Answered, Failed: clients.Failed}
	if err := r.servers.Ask(ctx, askStatus, &c.Account.Served); err != nil {
		return fmt.Errorf("end servers: %w", err)
	}
	if err := errors.Join(r.clients.Stop(measure.StopGrace), r.servers.Stop(measure.StopGrace)); err != nil {
		return fmt.Errorf("end clients and servers: %w", err)
	}
	if c.Account.FramesIn, c.Account.FramesOut, err = r.frames(); err != nil {
		return err
	}
	return c.Account.check(c.Subject)
}
