package seed

import (
	"net"
	"slices"
	"strings"
	"testing"
)

// Each case is a box with NICs whose MAC addresses end in 0, 1, 2, ..., named by the kernel
// eth0, eth1, eth2, ..., and what they are called in the end.
func TestRenames(t *testing.T) {
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0, 0, last} }
	for name, c := range map[string]struct {
		links []Link
		want  []string
		err   string
	}{
		"nothing":  {nil, []string{"eth0", "eth1", "eth2"}, ""},
		"as-is":    {[]Link{{Name: "eth0", MAC: mac(0)}}, []string{"eth0", "eth1", "eth2"}, ""},
		"exchange": {[]Link{{Name: "eth0", MAC: mac(1)}, {Name: "eth1", MAC: mac(0)}}, []string{"eth1", "eth0", "eth2"}, ""},
		"round":    {[]Link{{Name: "eth1", MAC: mac(0)}, {Name: "eth2", MAC: mac(1)}, {Name: "eth0", MAC: mac(2)}}, []string{"eth1", "eth2", "eth0"}, ""},
		"others":   {[]Link{{Name: "front", MAC: mac(2)}, {Name: "back", MAC: mac(0)}}, []string{"back", "eth1", "front"}, ""},
		// One that the seed says nothing of is in the way.
		"makes-way":      {[]Link{{Name: "eth0", MAC: mac(2)}}, []string{"eth2", "eth1", "eth0"}, ""},
		"makes-way-late": {[]Link{{Name: "eth2", MAC: mac(1)}, {Name: "eth1", MAC: mac(0)}}, []string{"eth1", "eth2", "eth0"}, ""},
		"two-make-way":   {[]Link{{Name: "eth0", MAC: mac(2)}, {Name: "eth2", MAC: mac(1)}}, []string{"eth1", "eth2", "eth0"}, ""},
		"by-name":        {[]Link{{Name: "eth1"}}, []string{"eth0", "eth1", "eth2"}, ""},
		"not-there":      {[]Link{{Name: "eth0", MAC: mac(9)}, {Name: "eth1", MAC: mac(2)}}, []string{"eth0", "eth2", "eth1"}, "eth0: no interface"},
	} {
		t.Run(name, func(t *testing.T) {
			nics := []nic{{"lo", nil}, {"eth0", mac(0)}, {"eth1", mac(1)}, {"eth2", mac(2)}}
			changes, err := renames(nics, c.links)
			got := []string{"eth0", "eth1", "eth2"}
			for _, change := range changes {
				if i := slices.IndexFunc(nics, func(n nic) bool { return n.name == change.from }); i > 0 {
					got[i-1] = change.to
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q by %v, want %q", got, changes, c.want)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}
