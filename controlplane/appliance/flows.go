package appliance

import (
	"context"
	"time"

	"weir/controlplane/passive"
)

// flowInterval is how often it is looked at what becomes of connections.
const flowInterval = time.Second

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
			for _, check := range detector.Look(time.Now(), a.connections(ctx)) {
				a.log.Info("connections to a backend get nowhere; checking it now", "check", check)
				a.checker.Suspect(check)
			}
		}
	}
}

// connections returns what has become of the connections to each backend that is
// checked, by its check.
func (a *Appliance) connections(ctx context.Context) map[string]passive.Counts {
	sum := a.totals(ctx)
	view := a.reconciler.View()
	all := make(map[string]passive.Counts)
	for i := range view.Services {
		for k := range view.Services[i].Backends {
			b := &view.Services[i].Backends[k]
			if b.Check == "" {
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
			all[b.Check] = c
		}
	}
	return all
}
