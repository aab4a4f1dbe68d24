package containerlab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/controlplane/config"
	"weir/lab/clab"
)

// TestConfigurations holds what is in the labs' files against each other, without
// running them: each topology can be read, has its page and its check, and each of
// its weirs a configuration that fits the box that holds it.
func TestConfigurations(t *testing.T) {
	files, err := filepath.Glob("*.clab.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no labs here, %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".clab.yml")
		t.Run(name, func(t *testing.T) {
			topology, err := clab.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			if topology.Name != name {
				t.Errorf("it calls itself %s", topology.Name)
			}
			if _, err := os.Stat(filepath.Join(name, "README.md")); err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(filepath.Join(name, "check")); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("check is no program: %v", err)
			}
			weirs := 0
			for _, n := range topology.Nodes {
				for _, b := range n.Binds {
					if b.Target == "/etc/weir/weir.yaml" {
						weirs++
						configured(t, topology, n, b.Source)
					}
				}
			}
			if weirs == 0 {
				t.Error("there is no weir in it")
			}
		})
	}
}

// configured fails the test if a weir's configuration has a mistake on the box that
// the node is in.
func configured(t *testing.T, topology *clab.Topology, weir *clab.Node, file string) {
	t.Helper()
	host := config.Host{Interfaces: []string{"lo"}, NotEthernet: []string{"lo"}}
	for _, n := range topology.Nodes {
		if n.Name == weir.Shares {
			host.Addresses = addresses(t, n)
		}
	}
	for _, l := range topology.Links {
		for _, e := range l.Ends {
			if e.Node == weir.Shares {
				host.Interfaces = append(host.Interfaces, e.Interface)
			}
		}
	}
	c, warnings, err := config.Load(file, &host)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Errorf("%s: %v", file, warnings)
	}
	if c.Node != weir.Shares {
		t.Errorf("%s: its node is %s, and runs in %s", file, c.Node, weir.Shares)
	}
}

// addresses returns those that the node's commands add.
func addresses(t *testing.T, n *clab.Node) (all []netip.Prefix) {
	t.Helper()
	for _, command := range n.Stages[clab.Configure].Enter {
		if len(command) > 3 && strings.Join(command[:3], " ") == "ip addr add" {
			p, err := netip.ParsePrefix(command[3])
			if err != nil {
				t.Error(err)
			}
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		t.Errorf("%s gets no address before weir starts", n.Name)
	}
	return all
}
