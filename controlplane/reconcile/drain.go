package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weir/controlplane/config"
)

// MaxOver is the longest time that a drain may take.
const MaxOver = 24 * time.Hour

// Drain has a backend get no new flows, in one service or, if that is empty, in
// all that have it now. Its weight goes down in steps over a time, at most
// MaxOver; 0 is at once. The flows that it has stay. What Drain says holds until
// Undrain, whatever else happens, also after a restart. It returns the services;
// an error says that there are none.
func (r *Reconciler) Drain(backend netip.Addr, service string, over time.Duration) ([]string, error) {
	if over < 0 || over > MaxOver {
		return nil, fmt.Errorf("drain: %s is not a time from 0s to %s", over, MaxOver)
	}
	return r.order(backend, service, func(m member, b *Backend) {
		if b == nil || b.Drained && b.Level == 0 {
			return
		}
		d := Drain{Start: time.Now()}
		if b.Status == StatusUp {
			d.Over, d.From = over, b.Level
		}
		r.drains[m] = d
	})
}

// Undrain takes a Drain back. In a service with a slow start, the weight comes
// back in steps.
func (r *Reconciler) Undrain(backend netip.Addr, service string) ([]string, error) {
	cfg := r.config.Load()
	return r.order(backend, service, func(m member, b *Backend) {
		if b == nil || !b.Drained {
			return
		}
		delete(r.drains, m)
		i := slices.IndexFunc(cfg.Services, func(s config.Service) bool { return s.Name == m.service })
		if i >= 0 {
			r.compiler.paces.resume(m, b.Level, cfg.Services[i].SlowStart, time.Now())
		}
	})
}

// order calls give for the backend in each of its services, or in one, with what
// it is like now, and puts what comes of it in force.
func (r *Reconciler) order(backend netip.Addr, service string, give func(member, *Backend)) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg := r.config.Load()
	names, err := servicesOf(cfg, backend, service)
	if err != nil {
		return nil, err
	}
	before := maps.Clone(r.drains)
	view := r.view.Load()
	for _, name := range names {
		m := member{name, backend}
		give(m, view.backend(m))
	}
	if err := r.compile(); err != nil {
		r.drains = before
		return nil, err
	}
	r.saveDrains()
	return names, nil
}

// servicesOf returns the names of the services that have a backend: all, or the
// one that is named.
func servicesOf(cfg *config.Config, backend netip.Addr, service string) ([]string, error) {
	var names, known []string
	for i := range cfg.Services {
		s := &cfg.Services[i]
		known = append(known, s.Name)
		if service != "" && s.Name != service {
			continue
		}
		if slices.ContainsFunc(s.Backends, func(b config.Backend) bool { return b.Address == backend }) {
			names = append(names, s.Name)
		}
	}
	switch {
	case len(names) > 0:
		return names, nil
	case service == "":
		return nil, fmt.Errorf("no service has a backend %s; weir show backends lists them", backend)
	case !slices.Contains(known, service):
		return nil, fmt.Errorf("no such service: %q; there are %s", service, strings.Join(known, ", "))
	}
	return nil, fmt.Errorf("service %s has no backend %s; weir show backends lists them", service, backend)
}

// backend returns a backend of the view; nil if it is not there.
func (v *View) backend(m member) *Backend {
	for i := range v.Services {
		if v.Services[i].Name != m.service {
			continue
		}
		for k := range v.Services[i].Backends {
			if b := &v.Services[i].Backends[k]; b.Address == m.backend {
				return b
			}
		}
	}
	return nil
}

// forgetDrains drops the drains of backends that are not configured any more. It
// says so, since a backend may have come along under another service's name.
func (r *Reconciler) forgetDrains(cfg *config.Config) {
	configured := members(cfg)
	before := len(r.drains)
	for m := range r.drains {
		if !slices.Contains(configured, m) {
			r.log.Info("drain is over, as the service does not have the backend any more", "service", m.service, "backend", m.backend)
			delete(r.drains, m)
		}
	}
	if len(r.drains) != before {
		r.saveDrains()
	}
}

// drainRecord is one drain in the file.
type drainRecord struct {
	Service string     `json:"service"`
	Backend netip.Addr `json:"backend"`
}

type drainFile struct {
	Drained []drainRecord `json:"drained"`
}

// loadDrains reads what was drained when weir ended. Whoever was on the way out
// is out now. The file stays as it is: it may be that of another weir, which runs
// and has the socket that this one is about to be refused.
func (r *Reconciler) loadDrains() {
	if r.parts.DrainsPath == "" {
		return
	}
	text, err := os.ReadFile(r.parts.DrainsPath)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var drained []member
	if err == nil {
		drained, err = parseDrains(text)
	}
	if err != nil {
		r.log.Warn("cannot read what was drained; nothing is", "file", r.parts.DrainsPath, "error", err)
	}
	configured := members(r.config.Load())
	for _, m := range drained {
		if slices.Contains(configured, m) {
			r.drains[m] = Drain{}
		}
	}
}

func parseDrains(text []byte) ([]member, error) {
	var f drainFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("parse drains: %w", err)
	}
	var all []member
	for _, d := range f.Drained {
		if d.Service == "" || !d.Backend.IsValid() {
			return nil, errors.New("parse drains: one is without service or backend")
		}
		all = append(all, member{d.Service, d.Backend})
	}
	return all, nil
}

// saveDrains replaces the file as a whole. That it cannot be written does not
// keep a drain from being in force.
func (r *Reconciler) saveDrains() {
	path := r.parts.DrainsPath
	if path == "" {
		return
	}
	f := drainFile{Drained: []drainRecord{}}
	for _, m := range members(r.config.Load()) {
		if _, drained := r.drains[m]; drained {
			f.Drained = append(f.Drained, drainRecord{m.service, m.backend})
		}
	}
	text, err := json.Marshal(f)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path+".new", append(text, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		r.log.Warn("cannot save what is drained; a restart would forget it", "file", path, "error", err)
	}
}
