package appliance

import (
	"maps"
	"os/exec"
	"slices"
	"testing"

	"weir/controlplane/config"
	"weir/lab/appliance/seed"
)

// The example's seed is one that the appliance takes whole.
func TestExampleSeed(t *testing.T) {
	files, err := seed.ReadDir("examples/seed")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{seed.MetaData, seed.NetworkConfig, seed.UserData, seed.WeirYAML}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}
	s, err := seed.Parse(files)
	if err != nil || len(s.Ignored) > 0 {
		t.Errorf("%v, ignored %q", err, s.Ignored)
	}
	if s.Hostname != "lb1" || len(s.Keys) != 1 || len(s.Links) != 2 || len(s.Files) != 1 {
		t.Errorf("it says %+v", s)
	}
	cfg, _, err := config.Load("examples/seed/weir.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range cfg.Interfaces {
		if !slices.ContainsFunc(s.Links, func(l seed.Link) bool { return l.Name == i.Name }) {
			t.Errorf("weir.yaml has %s, and network-config has not", i.Name)
		}
	}
}

// The others are for programs that are not here; what can be said without them is.
func TestExamples(t *testing.T) {
	for _, args := range [][]string{
		{"virt-xml-validate", "examples/libvirt.xml", "domain"},
		{"xmllint", "--noout", "examples/libvirt.xml"},
		{"sh", "-n", "examples/proxmox.sh"},
		{"sh", "-n", "examples/qemu.sh"},
	} {
		t.Run(args[0], func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%v; scripts/test-appliance installs it", err)
			}
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
