package appliance

import (
	"context"
	"log/slog"
	"time"

	"weir/dataplane/engine"
	"weir/dataplane/stats"
)

const (
	// watchInterval is how often the counters are looked at for what somebody
	// should be told of.
	watchInterval = 10 * time.Second

	// calm is after how many looks in a row without anything new something counts
	// as over. What comes back sooner is not news.
	calm = 6
)

// watch logs what only counters know and nobody may be looking at: workers
// themselves do not log.
func (a *Appliance) watch(ctx context.Context) error {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	w, counts := newWatcher(a.log), totals{engine: a.Engine}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			now, silent := counts.add(ctx)
			for _, s := range silent {
				a.log.Error("a worker does not respond", "interface", s.Interface, "queue", s.Index, "cpu", s.CPU)
			}
			w.look(now)
		}
	}
}

// totals are the counters of all workers, added up now and then in the same memory:
// with many backends they are megabytes.
type totals struct {
	engine *engine.Engine
	all    []engine.WorkerStatus
	sum    stats.Counters
}

// add adds up the counters of all workers that answer, and names those that do not.
// The sum is good until the next call.
func (t *totals) add(ctx context.Context) (sum *stats.Counters, silent []engine.WorkerStatus) {
	ctx, cancel := context.WithTimeout(ctx, watchInterval/2)
	defer cancel()
	t.all = t.engine.StatusAgain(ctx, t.all)
	t.sum.Reset()
	for i := range t.all {
		switch s := &t.all[i]; {
		case s.Err == nil:
			s.Counters.AddTo(&t.sum)
		case ctx.Err() != nil:
			silent = append(silent, *s)
		}
	}
	return &t.sum, silent
}

// trouble is a counter that should stand still.
type trouble struct {
	reason string
	text   string
	count  func(*stats.Counters) uint64
}

func troubles() []trouble {
	drops := func(r stats.Reason, text string) trouble {
		return trouble{r.String(), text, func(c *stats.Counters) uint64 { return c.Drops[r] }}
	}
	return []trouble{
		drops(stats.AddressConflict, "another station claims a VIP by ARP or NDP; find it, or packets go there"),
		drops(stats.Reflected, "announcements of VIPs come back by another interface: two of weir's interfaces are on one link, and neighbours will switch between them; work one of them only"),
		drops(stats.Looped, "packets came from the very station they are to be forwarded to: it sends them back; is a backend another load balancer for the same VIP?"),
		drops(stats.PortsExhausted, "no SNAT port is free for new flows to a backend; they are refused, others go on; give nat more addresses or ports"),
		drops(stats.TableFull, "a flow table is full of flows that are alive, so that mode nat refuses new ones; raise flows.entries"),
		{"unrecorded", "more new flows than flows.new_rate: a flood? those above it go by Maglev alone and do not stay if backends change",
			func(c *stats.Counters) uint64 { return c.FlowsUnrecorded }},
	}
}

// watcher tells of each trouble when it begins and when it is over.
type watcher struct {
	log    *slog.Logger
	all    []trouble
	before []uint64 // counts at the last look
	during []uint64 // what the trouble has come to since it began
	quiet  []int    // looks in a row without anything new; calm when there is no trouble
}

func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, all: troubles()}
	n := len(w.all)
	w.before, w.during, w.quiet = make([]uint64, n), make([]uint64, n), make([]int, n)
	for i := range w.quiet {
		w.quiet[i] = calm
	}
	return w
}

// look holds the counters against those of the last look. They may have gone
// back: a worker that does not answer takes its counts along.
func (w *watcher) look(now *stats.Counters) {
	for i := range w.all {
		t := &w.all[i]
		n := t.count(now)
		news := n - min(n, w.before[i])
		w.before[i] = n
		w.during[i] += news
		switch {
		case news > 0 && w.quiet[i] == calm:
			w.log.Warn(t.text, "count", news, "reason", t.reason)
			w.quiet[i] = 0
		case news > 0:
			w.quiet[i] = 0
		case w.quiet[i] < calm:
			if w.quiet[i]++; w.quiet[i] == calm {
				w.log.Info("trouble is over", "reason", t.reason, "count", w.during[i])
				w.during[i] = 0
			}
		}
	}
}
