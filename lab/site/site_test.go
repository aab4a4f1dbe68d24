package site

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"weir/lab/labtest"
)

// binary builds weir.
func binary(t *testing.T) string {
	t.Helper()
	labtest.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "weir")
	build := exec.Command("go", "build", "-o", path, "weir/cmd/weir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	return path
}

// TestSite checks that a site serves as it says, in each of its shapes, and that
// nothing of it is left.
func TestSite(t *testing.T) {
	weir := binary(t)
	for name, opt := range map[string]Options{
		"onearmed":      {},
		"twoarmed":      {TwoArmed: true},
		"all_modes":     {Modes: DSR | IPIP | NAT},
		"nat_twoarmed":  {Modes: NAT, TwoArmed: true},
		"keep":          {Modes: Keep},
		"keep_twoarmed": {Modes: Keep, TwoArmed: true},
		"hop":           {Modes: IPIP | NAT, HopMTU: 1400},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			start := time.Now()
			opt.Name, opt.Weir, opt.Health = name, weir, true
			s, err := New(ctx, opt)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(s.WeirLog())
					out, _ := s.RunWeir(ctx, "show", "backends")
					t.Log(out)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(s.ConfigPath); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", s.ConfigPath, err)
				}
			})
			t.Logf("new: %v", time.Since(start))
			if err := s.StartWeir(ctx); err != nil {
				t.Fatal(err)
			}
			t.Logf("started: %v", time.Since(start))
			if err := s.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			t.Logf("ready: %v", time.Since(start))
			for _, vip := range s.VIPs() {
				if r := s.Client.Fetch(ctx, vip, 1<<20); r.Err != nil {
					t.Error(r)
				}
				if r := s.Client.Upload(ctx, vip, 1<<20); r.Err != nil {
					t.Error(r)
				}
				if r := s.Client.Echo(ctx, vip, []byte("hello")); r.Err != nil {
					t.Error(r)
				}
			}
			if err := s.Backends[0].Stop(); err != nil {
				t.Fatal(err)
			}
			if err := s.Backends[0].Start(); err != nil {
				t.Fatal(err)
			}
			if err := s.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			if err := s.StopWeir(); err != nil {
				t.Error(err)
			}
			t.Logf("all: %v", time.Since(start))
		})
	}
}
