package appliance

import (
	"context"
	"time"

	"weir/controlplane/passive"
	"weir/controlplane/reconcile"
)

// flowInterval is how often it is looked at what becomes of connections.
const flowInterval = time.Second

// logged is how many backends are named in one line of the log.
const logged = 8

// watchFlows has those backends checked at once whose connections get nowhere.
func (a *Appliance) watchFlows(ctx context.Context) error {
	t := time.NewTicker(flowInterval)
	defer t.Stop()
	detector := passive.New()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			counts, checks := a.connections(ctx)
			suspects := detector.Look(time.Now(), counts)
			if len(suspects) > 0 {
				a.log.Info("connections to backends get nowhere; checking them now", "count", len(suspects), "backends", suspects[:min(len(suspects), logged)])
			}
			for _, name := range suspects {
				for _, check := range checks[name] {
					a.checker.Suspect(check.ID)
				}
			}
		}
	}
}

// connections returns what has become of the connections to each backend that is
// checked, and its checks, by service and backend.
func (a *Appliance) connections(ctx context.Context) (map[string]passive.Counts, map[string][]reconcile.Check) {
	sum, _ := a.totals(ctx)
	view := a.reconciler.View()
	counts, checks := make(map[string]passive.Counts), make(map[string][]reconcile.Check)
	for i := range view.Services {
		for k := range view.Services[i].Backends {
			b := &view.Services[i].Backends[k]
			if len(b.Checks) == 0 {
				continue
			}
			var c passive.Counts
			for _, slot := range b.Slots {
				if int(slot.Number) >= len(sum.Backends) || sum.Backends[slot.Number].Generation != slot.Generation {
					continue
				}
				s := &sum.Backends[slot.Number]
				c.Opened += s.Opened
				c.Established += s.Established
				c.Resets += s.Resets
			}
			name := view.Services[i].Name + " " + b.Address.String()
			counts[name], checks[name] = c, b.Checks
		}
	}
	return counts, checks
}
