package appliance

import (
	"context"
	"time"

	"weir/controlplane/passive"
	"weir/controlplane/reconcile"
	"weir/dataplane/stats"
)

// flowInterval is how often it is looked at what becomes of connections.
const flowInterval = time.Second

// logged is how many backends are named in one line of the log.
const logged = 8

// watchFlows has those backends checked at once whose connections get nowhere.
func (a *Appliance) watchFlows(ctx context.Context) error {
	t := time.NewTicker(flowInterval)
	defer t.Stop()
	detector, totals := passive.New(), totals{engine: a.Engine}
	var seen connections
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			seen.of(a.reconciler.Compiled())
			sum, _ := totals.add(ctx)
			suspects := detector.Look(time.Now(), seen.count(sum))
			if len(suspects) > 0 {
				a.log.Info("connections to backends get nowhere; checking them now", "count", len(suspects), "backends", suspects[:min(len(suspects), logged)])
			}
			for _, name := range suspects {
				for _, check := range seen.backends[name].Checks {
					a.checker.Suspect(check.ID)
				}
			}
		}
	}
}

// connections is what becomes of the connections to each backend that is checked, by
// service and backend. Names and maps are made once for a view, and not each second
// for each of many backends.
type connections struct {
	view     *reconcile.View
	backends map[string]*reconcile.Backend
	counts   map[string]passive.Counts
}

// of has the next counts be of a view's backends.
func (c *connections) of(view *reconcile.View) {
	if c.view == view {
		return
	}
	*c = connections{view: view, backends: make(map[string]*reconcile.Backend), counts: make(map[string]passive.Counts)}
	for i := range view.Services {
		for k := range view.Services[i].Backends {
			if b := &view.Services[i].Backends[k]; len(b.Checks) > 0 {
				c.backends[view.Services[i].Name+" "+b.Address.String()] = b
			}
		}
	}
}

// count returns the counts, which are good until the next call.
func (c *connections) count(sum *stats.Counters) map[string]passive.Counts {
	for name, b := range c.backends {
		var n passive.Counts
		for _, slot := range b.Slots {
			if int(slot.Number) >= len(sum.Backends) || sum.Backends[slot.Number].Generation != slot.Generation {
				continue
			}
			s := &sum.Backends[slot.Number]
			n.Opened += s.Opened
			n.Established += s.Established
			n.Resets += s.Resets
		}
		c.counts[name] = n
	}
	return c.counts
}
