package reconcile

import (
	"context"
	"log/slog"
)

// report logs what has changed for backends, each once.
func (r *Reconciler) report(before, after *View) {
	old := make(map[member]*Backend)
	for i := range before.Services {
		for k := range before.Services[i].Backends {
			b := &before.Services[i].Backends[k]
			old[member{before.Services[i].Name, b.Address}] = b
		}
	}
	for i := range after.Services {
		s := &after.Services[i]
		for k := range s.Backends {
			b := &s.Backends[k]
			was := old[member{s.Name, b.Address}]
			r.reportStatus(s, was, b)
			r.reportMTU(s, was, b)
		}
	}
}

// reportStatus logs that a backend has another status, or that it cannot be
// reached for another reason. was is nil for a new one.
func (r *Reconciler) reportStatus(s *Service, was, b *Backend) {
	if was != nil && was.Status == b.Status && (b.Status != StatusUnreachable || was.Reason == b.Reason) {
		return
	}
	if was == nil && b.Status == StatusResolving {
		return // what comes of it will be said in a moment
	}
	args := []any{"service", s.Name, "backend", b.Address, "status", b.Status}
	if was != nil {
		args = append(args, "was", was.Status)
	}
	if b.Reason != "" {
		args = append(args, "reason", b.Reason)
	}
	if b.Level < steps && b.Status == StatusUp {
		args = append(args, "weight_until", b.Until)
	}
	level := slog.LevelInfo
	if b.Status == StatusDown || b.Status == StatusUnreachable {
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, "backend", args...)
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
