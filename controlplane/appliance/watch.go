package appliance

import (
	"context"
	"time"

	"weir/dataplane/stats"
)

// watchInterval is how often the counters are looked at for what somebody
// should be told of.
const watchInterval = 10 * time.Second

// watch logs what only counters know and nobody may be looking at: workers
// themselves do not log.
func (a *Appliance) watch(ctx context.Context) error {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	var before stats.Counters
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			now := a.totals(ctx)
			a.tell(&before, &now)
			before = now
		}
	}
}

// totals adds up the drops of all workers that answer.
func (a *Appliance) totals(ctx context.Context) stats.Counters {
	ctx, cancel := context.WithTimeout(ctx, watchInterval/2)
	defer cancel()
	var sum stats.Counters
	for _, s := range a.Status(ctx) {
		switch {
		case s.Err == nil:
			s.Counters.AddTo(&sum)
		case ctx.Err() != nil:
			a.log.Error("a worker does not respond", "interface", s.Interface, "queue", s.Index, "cpu", s.CPU)
		}
	}
	return sum
}

// tell logs what has happened between two looks.
func (a *Appliance) tell(before, now *stats.Counters) {
	for reason, text := range map[stats.Reason]string{
		stats.AddressConflict: "another station claims a VIP by ARP or NDP; find it, or packets go there",
		stats.Reflected:       "announcements of VIPs come back by another interface: two of weir's interfaces are on one link, and neighbours will switch between them; work one of them only",
		stats.Looped:          "packets came from the very station they are to be forwarded to: it sends them back; is a backend another load balancer for the same VIP?",
	} {
		if n := now.Drops[reason]; n > before.Drops[reason] {
			a.log.Warn(text, "drops", n-before.Drops[reason], "reason", reason)
		}
	}
}
