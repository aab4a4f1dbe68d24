package announcetest

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"weir/controlplane/announce"
)

func ads() []announce.Advertisement {
	return []announce.Advertisement{
		{Address: netip.MustParseAddr("203.0.113.11"), Pool: "public"},
		{Address: netip.MustParseAddr("203.0.113.10")},
		{Address: netip.MustParseAddr("2001:db8::1")},
	}
}

// The fake stands for announcers, so it has to behave as they do.
func TestFakeKeepsTheContract(t *testing.T) {
	for _, c := range Contract() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := NewFake("fake")
				c.Run(t, Subject{Announcer: f, Ads: ads(), Told: f.Told})
			})
		})
	}
}

func TestFakeReports(t *testing.T) {
	f := NewFake("fake")
	f.Set(ads())
	if f.Sets() != 1 || len(f.Ads()) != 3 || len(f.Status()) != 0 {
		t.Errorf("%d sets, ads %v, status %v of one that does not run", f.Sets(), f.Ads(), f.Status())
	}
	<-f.Changes()
	f.Report([]announce.Status{{State: announce.Down}})
	<-f.Changes()
	if s := f.Status(); len(s) != 1 || s[0].State != announce.Down {
		t.Errorf("status %+v", s)
	}
	want := errors.New("no answer")
	f.OnLeave(func(context.Context) error { return want })
	if err := f.Leave(t.Context()); !errors.Is(err, want) || f.Left() {
		t.Errorf("leave: %v, left %v", err, f.Left())
	}
}
