package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"

	"weir/lab/site"
)

// returnXDPPass is the program that passes all frames to the kernel.
func returnXDPPass() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()} // XDP_PASS
}

// wantStartError starts weir, which has to exit with status 1 and say all of
// what.
func (s *testSite) wantStartError(what ...string) {
	s.t.Helper()
	err := s.StartWeir(s.ctx)
	if err == nil {
		s.t.Fatal("weir has started")
	}
	for _, w := range append(what, "exit status 1") {
		if !strings.Contains(err.Error(), w) {
			s.t.Errorf("the error does not contain %q:\n%v", w, err)
		}
	}
}

// TestStartErrors gives weir configurations that cannot work on this host.
func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		mutate func(*site.Config)
		want   []string
	}{
		{
			"unknown interface",
			func(c *site.Config) { c.Interfaces[0].Name = "eth7" },
			[]string{"interfaces[0].name", "eth7", site.Front},
		},
		{
			"own address",
			func(c *site.Config) { c.Services[0].Addresses = []string{"10.0.0.2"} },
			[]string{"services[0].addresses[0]", "10.0.0.2", "own address"},
		},
		{
			"own address as backend",
			func(c *site.Config) { c.Services[0].Backends[0].Address = "10.0.0.2" },
			[]string{"services[0].backends[0].address", "own address"},
		},
		{
			"several mistakes",
			func(c *site.Config) {
				c.Interfaces[0].Driver = "dpdk"
				c.Services[0].Ports = []string{"tcp/99999"}
				c.Services[0].Mode = "proxy"
				c.Services[1].Name = c.Services[0].Name
				c.Services[1].Backends[0].Address = "b1.example"
			},
			[]string{
				"interfaces[0].driver", "services[0].ports[0]", "services[0].mode", "services[1].name",
				"services[1].backends[0].address",
			},
		},
		{
			"queues that the interface does not have",
			func(c *site.Config) { c.Interfaces[0].Driver, c.Interfaces[0].Queues = "afxdp", "3" },
			[]string{site.Front, "3 queues", "ethtool"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, site.Options{Backends: 1, Modes: site.DSR})
			c.mutate(s.Config)
			s.wantStartError(c.want...)
			if _, err := os.Stat(s.Socket); err == nil {
				t.Error("a weir that has not started has left its socket")
			}
		})
	}
}

// TestCheck has weir check look at the same mistakes without a running weir.
func TestCheck(t *testing.T) {
	s := newSite(t, site.Options{Backends: 1, Modes: site.DSR})
	s.must(s.WriteConfig(nil))
	if out, err := s.RunWeir(s.ctx, "check", s.ConfigPath); err != nil {
		t.Errorf("weir check: %v\n%s", err, out)
	}
	s.must(s.WriteConfig(func(c *site.Config) {
		c.Interfaces[0].Name = "eth7"
		c.Services[0].Addresses = []string{"10.0.0.2"}
	}))
	out, err := s.RunWeir(s.ctx, "check", s.ConfigPath)
	if err == nil {
		t.Error("weir check finds no mistake")
	}
	for _, want := range []string{"eth7", "own address"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output does not contain %q:\n%s", want, out)
		}
	}
}

// TestReloadErrors changes the file under a running weir to what it cannot take.
// It says so, and goes on with what it has.
func TestReloadErrors(t *testing.T) {
	s := startSite(t, site.Options{Modes: site.DSR}, nil)
	good := *s.Config
	for _, c := range []struct {
		name   string
		mutate func(*site.Config)
		want   string
	}{
		{"mistake", func(c *site.Config) { c.Services = []site.Service{{Name: "empty"}} }, "services[0].backends"},
		{"restart needed", func(c *site.Config) { c.Flows.Entries *= 2 }, "flows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := good
			c.mutate(&changed)
			*s.Config = changed
			if _, err := s.Reload(s.ctx); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("reload: %v, want an error about %s", err, c.want)
			}
			if r := s.echo(s.DSR4); r.Err != nil {
				t.Error(r)
			}
		})
	}
}

// TestSecondWeir starts weir on a host where one runs.
func TestSecondWeir(t *testing.T) {
	s := startSite(t, site.Options{Modes: site.DSR}, nil)
	out, err := s.RunWeir(s.ctx, "run", "--config", s.ConfigPath)
	if err == nil || !strings.Contains(out, s.Socket) {
		t.Errorf("the second weir ended with %v and said:\n%s", err, out)
	}
	if r := s.echo(s.DSR4); r.Err != nil {
		t.Errorf("the first does not serve any more: %v", r)
	}
	if _, err := s.RunWeir(s.ctx, "show", "services"); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	}
}
