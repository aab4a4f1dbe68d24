package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
)

func plans() map[string]*api.Plan {
	addr := netip.MustParseAddr
	var crowd []api.SlotMove
	for i := range byte(20) {
		crowd = append(crowd, api.SlotMove{Backend: netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, i}), Before: 0.05, After: 0.0455, Leaves: 0.0045})
	}
	return map[string]*api.Plan{
		"plan": {
			Warnings: []string{"weir.yaml:3: warning: something"},
			Services: []api.PlannedService{
				{
					Name: "web", Change: "changed", Keys: []string{"slow_start", "backends"}, Moved: 0.334, Flows: 1204, Breaks: 401,
					Backends: []api.PlannedBackend{
						{Address: addr("10.0.0.13"), Change: "added"}, {Address: addr("10.0.0.12"), Change: "changed", Keys: []string{"weight 100 to 50", "state active to draining"}},
					},
					Slots: []api.SlotMove{{Before: 0.1, Leaves: 0.1}, {Backend: addr("10.0.0.13"), After: 0.334, Comes: 0.334}, {Backend: addr("10.0.0.12"), Before: 0.9, After: 0.666, Leaves: 0.25, Comes: 0.016}},
				},
				{Name: "dns", Change: "removed", Flows: 12, Breaks: 12},
				{Name: "ntp", Change: "added"},
				{Name: "same", Change: "unchanged", Flows: 7},
				{Name: "moves", Change: "unchanged", Moved: 0.01},
			},
			VIPsAdded: []netip.Addr{addr("203.0.113.11")}, VIPsRemoved: []netip.Addr{addr("203.0.113.53"), addr("2001:db8::53")},
			Sections: []string{"ipip", "nat"}, Flows: 1223, Breaks: 413,
		},
		"plan-nothing": {Services: []api.PlannedService{{Name: "web", Change: "unchanged", Flows: 12}}, Flows: 12},
		"plan-restart": {
			Services: []api.PlannedService{{Name: "web-with-a-name-longer-than-most", Change: "changed", Keys: []string{"addresses"}, Slots: crowd}},
			Sections: []string{"interfaces", "flows"}, Restart: []string{"interfaces", "flows"}, Flows: 1 << 24, Breaks: 1 << 23,
		},
	}
}

func TestPlan(t *testing.T) {
	for name, plan := range plans() {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Plan(&out, plan); err != nil {
				t.Fatal(err)
			}
			expect(t, name, out.Bytes())
			for line := range strings.Lines(out.String()) {
				if n := len(line) - 1; n > lineWidth {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			out.Reset()
			var back api.Plan
			if err := JSON(&out, plan); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(out.Bytes(), &back); err != nil || !reflect.DeepEqual(&back, plan) {
				t.Errorf("as JSON it is %+v, error %v", back, err)
			}
		})
	}
}

func TestOrdered(t *testing.T) {
	soon := time.Now().Add(time.Minute + 400*time.Millisecond)
	var out bytes.Buffer
	for i, b := range []api.Backend{
		{Drained: true, Status: "up", WeightNow: 90, WeightUntil: soon},
		{Drained: true, Status: "draining", Reason: "taken out by weir drain"},
		{Drained: true, Status: "down", Reason: "connection\nrefused"},
		{Status: "up", WeightNow: 10, WeightUntil: soon},
		{Status: "up", WeightNow: 100},
		{Status: "draining", Reason: "its state is draining"},
		{Status: "disabled"},
	} {
		b.Service, b.Address, b.Weight = fmt.Sprintf("s%d", i), netip.MustParseAddr("10.0.0.11"), 100
		b.Flows = 12
		if err := Ordered(&out, []api.Backend{b}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "ordered", out.Bytes())
}

func expect(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name + ".txt"
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
