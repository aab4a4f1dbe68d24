package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"slices"

	"weir/controlplane/reconcile"
	"weir/dataplane/worker"
)

// maxConfig bounds the text of a configuration, in bytes.
const maxConfig = 64 << 20

// order gives an order about the backend, and maybe the service, that the request
// names, and returns what has become of it.
func order(r *http.Request, a Appliance, give func(backend netip.Addr, service string) ([]string, error)) (Ordered, error) {
	q := r.URL.Query()
	address, err := netip.ParseAddr(q.Get("backend"))
	if err != nil {
		return Ordered{}, fmt.Errorf("backend: %q is not an address, as 10.0.0.11 or 2001:db8::11", q.Get("backend"))
	}
	names, err := give(address, q.Get("service"))
	if err != nil {
		return Ordered{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	view, sum := a.View(), totals(a.Status(ctx))
	out := Ordered{Backends: []Backend{}}
	for i := range view.Services {
		s := &view.Services[i]
		if !slices.Contains(names, s.Name) {
			continue
		}
		left := false
		for k := range s.Backends {
			v := &s.Backends[k]
			if v.Address == address {
				out.Backends = append(out.Backends, backend(s, v, sum))
			}
			left = left || v.Status == reconcile.StatusUp && !v.Drained
		}
		if !left {
			out.Warnings = append(out.Warnings, fmt.Sprintf("service %s has no backend left for new flows that is up and not drained", s.Name))
		}
	}
	return out, nil
}

// plan works out what the configuration in the request's body would change, and
// holds every flow there is against it.
func plan(w http.ResponseWriter, r *http.Request, a Appliance) (Plan, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxConfig))
	if err != nil {
		return Plan{}, fmt.Errorf("read configuration: %w", err)
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		name = "weir.yaml"
	}
	p, warnings, err := a.Plan(name, text)
	if err != nil {
		return Plan{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
	defer cancel()
	flows, breaks := make(map[string]int), make(map[string]int) // by service
	for _, each := range a.Workers() {
		err := each.Flows(ctx, func(f worker.Flow) bool {
			if service, lost := p.Breaks(&f); service != "" {
				flows[service]++
				if lost {
					breaks[service]++
				}
			}
			return true
		})
		if err != nil && !errors.Is(err, worker.ErrStopped) { // whose flows are gone
			return Plan{}, fmt.Errorf("look through the flows: %w", err)
		}
	}
	out := Plan{
		Restart: p.Fixed(), Warnings: warnings, Services: []PlannedService{},
		VIPsAdded: p.VIPsAdded, VIPsRemoved: p.VIPsRemoved, Sections: p.Sections,
	}
	for i := range p.Services {
		s := plannedService(&p.Services[i], p.Moves[p.Services[i].Name])
		s.Flows, s.Breaks = flows[s.Name], breaks[s.Name]
		out.Flows += s.Flows
		out.Breaks += s.Breaks
		out.Services = append(out.Services, s)
	}
	return out, nil
}

func plannedService(c *reconcile.ServiceChange, m *reconcile.Move) PlannedService {
	s := PlannedService{Name: c.Name, Change: string(c.Kind), Keys: c.Keys}
	for _, b := range c.Backends {
		s.Backends = append(s.Backends, PlannedBackend{b.Address, string(b.Kind), b.Keys})
	}
	if m != nil {
		s.Moved = part(m.Share)
		for _, b := range m.Backends {
			s.Slots = append(s.Slots, SlotMove{b.Address, part(b.Before), part(b.After), part(b.Leaves), part(b.Comes)})
		}
	}
	return s
}

// part rounds what is measured in slots to what is worth reading.
func part(share float64) float64 { return math.Round(share*1e4) / 1e4 }
