package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/controlplane/via"
	"weir/dataplane/engine"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
)

const before = `node: lb1
interfaces: [{name: eth1}]
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [udp/1000]
    table_size: 1009
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12, weight: 300}]
  - name: dns
    addresses: [203.0.113.10]
    ports: [udp/53]
    table_size: 1009
    backends: [{address: 10.0.0.53}]
  - name: ntp
    addresses: [203.0.113.10]
    ports: [udp/123]
    table_size: 1009
    backends: [{address: 10.0.0.53}]
`

// stage is all that a reconciler needs: one interface, on which every backend is.
type stage struct {
	space   *nat.Space
	applied chan *snapshot.Snapshot
	hops    map[netip.Addr]nexthop.Hop
}

func (s *stage) Apply(snap *snapshot.Snapshot, _ steer.Set) error { s.applied <- snap; return nil }
func (s *stage) Interfaces() []engine.InterfaceStatus {
	return []engine.InterfaceStatus{{Name: "eth1", MAC: packet.MAC{2, 0, 0, 0, 1, 1}, MTU: 1500, Workers: 2}}
}
func (s *stage) NATSpace() *nat.Space           { return s.space }
func (s *stage) PathMTU() <-chan engine.PathMTU { return nil }
func (s *stage) Changes() <-chan struct{}       { return nil }
func (s *stage) SetTargets(addrs []netip.Addr) {
	for _, a := range addrs {
		s.hops[a] = nexthop.Hop{Addr: a, State: nexthop.Resolved, Interface: "eth1", DstMAC: nexthop.MAC{2, 1}, MTU: 1500}
	}
}
func (s *stage) Hops() map[netip.Addr]nexthop.Hop          { return s.hops }
func (s *stage) Addresses() []nexthop.Address              { return nil }
func (s *stage) SetChecks([]health.Check)                  {}
func (s *stage) Results() map[string]health.Result         { return nil }
func (s *stage) Result(string) health.Result               { return health.Result{} }
func (s *stage) Moved(uint64) ([]netip.Addr, uint64, bool) { return nil, 0, true }
func (s *stage) Changed(uint64) ([]string, uint64, bool)   { return nil, 0, true }
func (s *stage) ChangeWays(map[string]via.Way, []string)   {}

// quiet has no links to tell anything.
type quiet struct{}

func (quiet) SetInterfaces([]l2.Interface)                 {}
func (quiet) SetOwn([]netip.Addr)                          {}
func (quiet) SetAddresses([]netip.Addr)                    {}
func (quiet) SetBackends(func() map[packet.MAC]netip.Addr) {}
func (quiet) Nodes() []netip.Addr                          { return nil }
func (quiet) Stances() map[netip.Addr]announce.Stance      { return nil }
func (quiet) Changes() <-chan struct{}                     { return nil }

// planning makes the fake plan for a configuration, with a worker that has flows
// of it.
func (f *fake) planning(t *testing.T) {
	t.Helper()
	parse := func(name string, text []byte) (*config.Config, config.Warnings, error) {
		return config.Parse(name, text, nil)
	}
	cfg, _, err := parse("weir.yaml", []byte(before))
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{nat.NewSpace(), make(chan *snapshot.Snapshot, 8), make(map[netip.Addr]nexthop.Hop)}
	r := reconcile.New(cfg, reconcile.Parts{DataPlane: s, NextHops: s, Health: s, Ways: s, Links: quiet{}}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	snap := <-s.applied
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ports := slices.Concat(slices.Repeat([]uint16{1000}, 1000), slices.Repeat([]uint16{53}, 10), slices.Repeat([]uint16{123}, 5))
	f.runWorker(t, "eth1", snap, ports)
	f.plan = func(name string, text []byte) (*reconcile.Plan, []string, error) {
		cfg, warnings, err := parse(name, text)
		if err != nil {
			return nil, nil, err
		}
		var texts []string
		for _, w := range warnings {
			texts = append(texts, w.Error())
		}
		p, err := r.Plan(cfg)
		return p, texts, err
	}
}

func TestPlan(t *testing.T) {
	f := newFake()
	f.planning(t)
	socket, _ := serve(t, f)
	after := strings.NewReplacer(
		"10.0.0.11}", "10.0.0.13}", "weight: 300", "weight: 100", "table_size: 1009\n    backends: [{address: 10.0.0.53}]\n  - name: ntp", "table_size: 11\n    backends: [{address: 10.0.0.53}]\n  - name: time",
		"udp/123", "udp/124", "node: lb1", "node: lb1\nlog: {level: debug}\nipip: {source: 10.9.9.9}",
	).Replace(before)
	got, err := NewClient(socket).Plan(t.Context(), "next.yaml", []byte(after))
	if err != nil {
		t.Fatal(err)
	}
	// How many of the 1000 flows 10.0.0.11 has is up to Maglev, and to the hash.
	if web := &got.Services[0]; web.Breaks < 150 || web.Breaks > 350 || got.Breaks != web.Breaks+5 || web.Flows != 1000 {
		t.Errorf("of web %d break of %d, in all %d; want about 250 of 1000, and 5 more", web.Breaks, web.Flows, got.Breaks)
	}
	got.Services[0].Breaks, got.Breaks = 250, 255
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/plan.json"
	if *update {
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(text, '\n'), want) {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
}

func TestPlanOfNothing(t *testing.T) {
	f := newFake()
	f.planning(t)
	socket, _ := serve(t, f)
	got, err := NewClient(socket).Plan(t.Context(), "next.yaml", []byte(before))
	if err != nil || got.Flows != 1015 || got.Breaks != 0 || len(got.Restart)+len(got.Sections)+len(got.VIPsAdded)+len(got.VIPsRemoved) != 0 {
		t.Errorf("%+v, error %v", got, err)
	}
	for _, s := range got.Services {
		if s.Change != "unchanged" || s.Moved != 0 || len(s.Keys)+len(s.Backends)+len(s.Slots) != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestPlanOfAWrongFile(t *testing.T) {
	f := newFake()
	f.planning(t)
	socket, _ := serve(t, f)
	_, err := NewClient(socket).Plan(t.Context(), "next.yaml", []byte(strings.NewReplacer("udp/53", "udp/0", "203.0.113.10", "203.0.113").Replace(before)))
	var mistakes Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) != 4 || !strings.HasPrefix(mistakes[0], "next.yaml:5: services[0].addresses[0]: ") ||
		!strings.HasPrefix(mistakes[2], "next.yaml:11: services[1].ports[0]: ") {
		t.Errorf("error %q", err)
	}
	if code, body := ask(t, socket, "POST", "/v1/plan"); code != http.StatusUnprocessableEntity || !strings.Contains(body, `"mistakes":["weir.yaml`) {
		t.Errorf("of nothing at all: %d: %s", code, body)
	}
	f.plan = func(string, []byte) (*reconcile.Plan, []string, error) {
		return nil, nil, errors.New("weir is still starting")
	}
	if _, err := NewClient(socket).Plan(t.Context(), "next.yaml", nil); err == nil || errors.As(err, &mistakes) || err.Error() != "weir is still starting" {
		t.Errorf("error %v", err)
	}
}

// A worker that does not say which flows it has must not be taken for one
// without any, unless it has ended, and its flows with it.
func TestPlanNeedsEveryWorker(t *testing.T) {
	f := newFake()
	f.planning(t)
	f.workers = append(f.workers, f.workers[0])
	socket, _ := serve(t, f)
	got, err := NewClient(socket).Plan(t.Context(), "next.yaml", []byte(before))
	if err != nil || got.Flows != 2*1015 {
		t.Errorf("%d flows of two workers, error %v", got.Flows, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Run("", func(t *testing.T) { f.addWorker(t, "eth2", 1) }) // ends with the subtest
	if got, err = NewClient(socket).Plan(ctx, "next.yaml", []byte(before)); err != nil || got.Flows != 2*1015 {
		t.Errorf("%d flows when one worker has ended, error %v", got.Flows, err)
	}
}
