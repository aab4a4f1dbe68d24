package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"weir/controlplane/api"
	"weir/lab/site"
)

// verb runs a weir command that changes something.
func (s *testSite) verb(args ...string) {
	s.t.Helper()
	if out, err := s.RunWeir(s.ctx, args...); err != nil {
		s.t.Fatalf("weir %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// shares polls the share of a backend until it is what is wanted, and returns
// all different ones on the way, the first and the last included.
func (s *testSite) shares(service string, addr netip.Addr, want float64) (seen []float64) {
	s.t.Helper()
	s.await(fmt.Sprintf("the share of %s is %v", addr, want), func() error {
		share := s.backend(service, addr).Share
		if len(seen) == 0 || seen[len(seen)-1] != share {
			seen = append(seen, share)
		}
		if share < want-0.02 || share > want+0.02 {
			return fmt.Errorf("it is %v", share)
		}
		return nil
	})
	return seen
}

// inSteps fails the test if there were no steps between the first share and the
// last, or any in the wrong direction.
func inSteps(t *testing.T, shares []float64) {
	t.Helper()
	rising := shares[len(shares)-1] > shares[0]
	for i := 1; i < len(shares); i++ {
		if shares[i] > shares[i-1] != rising {
			t.Errorf("share goes from %v to %v on the way: %v", shares[i-1], shares[i], shares)
		}
	}
	if len(shares) < 4 {
		t.Errorf("the share has changed in the steps %v, want some more", shares)
	}
	t.Logf("shares: %.3f", shares)
}

// TestDrain drains a backend at once, and in steps, and brings it back, under
// transfers of which none may break.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Backends: 2, Modes: site.DSR | site.NAT}, nil)
	b := s.Backends[0]
	_, finish := s.startLoad(site.DSR4, 40, 0)
	_, finishNAT := s.startLoad(site.NAT4, 40, 0)

	s.verb("drain", b.Addr4.String())
	s.shares(site.DSR4, b.Addr4, 0)
	for _, service := range []string{site.DSR4, site.NAT4} {
		if got := s.backend(service, b.Addr4); got.Status != "draining" || got.Flows == 0 {
			t.Errorf("b1 of %s is %s with %d flows, want it draining with those it had", service, got.Status, got.Flows)
		}
	}
	if got := s.newFlows(32); got[b.Name] != 0 {
		t.Errorf("b1 is drained and got %d of 32 new flows", got[b.Name])
	}
	s.verb("undrain", b.Addr4.String())
	s.shares(site.DSR4, b.Addr4, 0.5)
	if got := s.newFlows(64); got[b.Name] == 0 {
		t.Errorf("b1 is undrained and got none of 64 new flows")
	}

	s.verb("drain", "--over", "3s", b.Addr4.String())
	inSteps(t, s.shares(site.DSR4, b.Addr4, 0))
	if got := s.newFlows(32); got[b.Name] != 0 {
		t.Errorf("b1 is drained and got %d of 32 new flows", got[b.Name])
	}
	s.verb("undrain", b.Addr4.String())
	s.shares(site.DSR4, b.Addr4, 0.5)
	for _, f := range []func() error{finish, finishNAT} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	for _, args := range [][]string{{"drain", "10.0.0.99"}, {"undrain", "10.0.0.99"}, {"drain"}} {
		if out, err := s.RunWeir(s.ctx, args...); err == nil {
			t.Errorf("weir %v: accepted: %s", args, out)
		}
	}
}

// TestSlowStart has a backend come up again, whose share grows in steps.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Backends: 2, Modes: site.DSR, Health: true}, func(c *site.Config) {
		for i := range c.Services {
			c.Services[i].SlowStart = "3s"
		}
	})
	b := s.Backends[0]
	s.shares(site.DSR4, b.Addr4, 0.5)
	b.SetHealthy(false)
	s.shares(site.DSR4, b.Addr4, 0)
	b.SetHealthy(true)
	inSteps(t, s.shares(site.DSR4, b.Addr4, 0.5))
	if got := s.newFlows(64); got[b.Name] == 0 {
		t.Error("b1 has its share and got none of 64 new flows")
	}
}

// TestPlan asks what a changed configuration would do. Nothing of it is done.
func TestPlan(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Backends: 3, Modes: site.DSR | site.NAT}, nil)
	_, finish := s.startLoad(site.DSR4, 30, 0)
	before := get[api.Info](s, "info").Generation

	text, err := os.ReadFile(s.ConfigPath)
	s.must(err)
	var changed site.Config
	s.must(yaml.Unmarshal(text, &changed))
	changed.Service(site.DSR4).Remove(s.Backends[0].Addr4)
	changed.Service(site.NAT4).SetWeight(s.Backends[1].Addr4, 300)
	path := filepath.Join(t.TempDir(), "changed.yaml")
	text, err = yaml.Marshal(changed)
	s.must(err)
	s.must(os.WriteFile(path, text, 0o600))

	out, err := s.RunWeir(s.ctx, "plan", path)
	if err != nil {
		t.Fatalf("weir plan: %v\n%s", err, out)
	}
	t.Logf("weir plan:\n%s", out)
	for _, want := range []string{site.DSR4, site.NAT4, s.Backends[0].Addr4.String(), "%"} {
		if !strings.Contains(out, want) {
			t.Errorf("weir plan does not say anything of %q", want)
		}
	}
	if strings.Contains(out, site.DSR6) {
		t.Errorf("weir plan speaks of %s, which does not change", site.DSR6)
	}
	if after := get[api.Info](s, "info").Generation; after != before {
		t.Errorf("a plan has changed the running weir: generation %d, was %d", after, before)
	}
	if got := s.newFlows(64); got["b1"] == 0 {
		t.Errorf("b1 has got none of 64 flows after a plan: %v", got)
	}
	out, err = s.RunWeir(s.ctx, "plan", s.ConfigPath)
	if err != nil || strings.Contains(out, "%") {
		t.Errorf("of the configuration in force, weir plan says (%v):\n%s", err, out)
	}
	s.must(os.WriteFile(path, []byte("services: 7\n"), 0o600))
	if out, err := s.RunWeir(s.ctx, "plan", path); err == nil {
		t.Errorf("a plan of a mistake: %s", out)
	}
	if err := finish(); err != nil {
		t.Error(err)
	}
}
