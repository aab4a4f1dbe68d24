package engine_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weir/dataplane/engine"
	"weir/dataplane/nic"
	"weir/dataplane/packet/packettest"
)

// A worker that hangs shows, and so does its return; the other interface's are
// not taken for hanging, though they have no work. All of weir hangs if that one does, too.
func TestAWorkerThatHangs(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.AFPacket}).run()
	release, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- r.Workers()[0].Do(context.Background(), func() { <-release }) }()
	s := r.await(0, "stuck", func(s engine.InterfaceStatus) bool { return s.Stuck })
	if s.Alive() || !s.Up || s.Err != nil {
		t.Errorf("with a worker that hangs: %+v", s)
	}
	if other := r.Interfaces()[1]; !other.Alive() {
		t.Errorf("the other interface: %+v", other)
	}
	if r.Hangs() {
		t.Error("with one worker that works, all hangs")
	}
	for _, w := range r.Workers()[1:] {
		go func() { done <- w.Do(context.Background(), func() { <-release }) }()
	}
	r.await(1, "stuck", func(s engine.InterfaceStatus) bool { return s.Stuck && r.Hangs() })
	close(release)
	for range r.Workers() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	r.await(1, "back", func(s engine.InterfaceStatus) bool { return !s.Stuck && !r.Hangs() })
	r.await(0, "back", func(s engine.InterfaceStatus) bool { return !s.Stuck })
	r.forwards(0, 1, 1)
}

func TestTellsClaims(t *testing.T) {
	for _, driver := range []nic.Driver{nic.Auto, nic.AFPacket} {
		t.Run(string(driver), func(t *testing.T) {
			r := newRig(t, engine.Interface{Driver: driver}).run()
			w := openWire(t, r.names[1]+"-peer")
			defer w.close()
			claim := packettest.ARPRequest(packettest.Spec{SrcMAC: clientMAC(), Src: netip.AddrPortFrom(vip(0), 0)}, vip(0))
			probe := packettest.ARPRequest(packettest.Spec{SrcMAC: serverMAC(7), Src: netip.MustParseAddrPort("0.0.0.0:0")}, vip(0))
			want := []engine.Claim{
				{Address: vip(0), MAC: clientMAC(), Interface: r.names[1]},
				{Address: vip(0), MAC: serverMAC(7), Interface: r.names[1], Probe: true},
			}
			told := map[engine.Claim]bool{}
			again := time.NewTicker(100 * time.Millisecond) // the first may be lost while things settle
			defer again.Stop()
			for deadline := time.After(patience); len(told) < len(want); {
				w.send(claim)
				w.send(probe)
				select {
				case got := <-r.Claims():
					if !slices.Contains(want, got) {
						t.Fatalf("told %+v, want one of %+v", got, want)
					}
					told[got] = true
				case <-again.C:
				case <-deadline:
					t.Fatalf("told %+v, want %+v", told, want)
				}
			}
		})
	}
}
