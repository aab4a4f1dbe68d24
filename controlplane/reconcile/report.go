package reconcile

import (
	"context"
	"log/slog"
	"net/netip"
)

// named is how many backends of a service that have changed in the same way are
// logged one by one; of more, they are named in one line.
const named = 8

// change is in what way backends of a service have changed.
type change struct {
	status, was Status // was is empty for new ones
	partly      bool   // it is up, and fails the checks of some VIPs
}

// report logs what has changed for backends, each once.
func (r *Reconciler) report(before, after *View) {
	names := make(map[string]*Service, len(before.Services))
	for i := range before.Services {
		names[before.Services[i].Name] = &before.Services[i]
	}
	for i := range after.Services {
		s := &after.Services[i]
		old := make(map[netip.Addr]*Backend)
		if was := names[s.Name]; was != nil {
			if same(was.Backends, s.Backends) {
				continue
			}
			for k := range was.Backends {
				old[was.Backends[k].Address] = &was.Backends[k]
			}
		}
		var order []change
		changed := make(map[change][]*Backend)
		for k := range s.Backends {
			b := &s.Backends[k]
			was := old[b.Address]
			if c, is := changeOf(was, b); is {
				if changed[c] == nil {
					order = append(order, c)
				}
				changed[c] = append(changed[c], b)
			}
			r.reportMTU(s, was, b)
		}
		for _, c := range order {
			r.reportChange(s, c, changed[c])
		}
	}
}

// same tells whether two slices are one.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// changeOf says how a backend has changed, if it has: in its status, or in why it
// cannot be reached or gets nothing for some VIP. was is nil for a new one.
func changeOf(was, b *Backend) (c change, is bool) {
	c = change{status: b.Status, partly: b.Status == StatusUp && b.Reason != ""}
	if was == nil {
		return c, b.Status != StatusResolving // what comes of that will be said in a moment
	}
	c.was = was.Status
	wasPartly := was.Status == StatusUp && was.Reason != ""
	return c, was.Status != b.Status || b.Status == StatusUnreachable && was.Reason != b.Reason || c.partly != wasPartly
}

// reportChange logs that backends have changed in the same way.
func (r *Reconciler) reportChange(s *Service, c change, all []*Backend) {
	level := slog.LevelInfo
	if c.status == StatusDown || c.status == StatusUnreachable || c.partly {
		level = slog.LevelWarn
	}
	log := func(text string, b *Backend, args ...any) {
		args = append(append([]any{"service", s.Name}, args...), "status", b.Status)
		if c.was != "" {
			args = append(args, "was", c.was)
		}
		if b.Reason != "" {
			args = append(args, "reason", b.Reason)
		}
		if b.Level < steps && b.Status == StatusUp {
			args = append(args, "weight_until", b.Until)
		}
		r.log.Log(context.Background(), level, text, args...)
	}
	if len(all) <= named {
		for _, b := range all {
			log("backend", b, "backend", b.Address)
		}
		return
	}
	var some []netip.Addr
	for _, b := range all[:named] {
		some = append(some, b.Address)
	}
	log("backends", all[0], "count", len(all), "backends", some)
}

// reportMTU logs that something about the path MTU to a backend was learned, or
// forgotten again.
func (r *Reconciler) reportMTU(s *Service, was, b *Backend) {
	if was == nil || was.MTU == b.MTU || was.MTUSource != MTULearned && b.MTUSource != MTULearned {
		return
	}
	text := "a router on the way says that packets to the backend have to be shorter"
	if b.MTUSource != MTULearned {
		text = "trying longer packets to the backend again"
	}
	r.log.Info(text, "service", s.Name, "backend", b.Address, "mtu", b.MTU, "was", was.MTU)
}
