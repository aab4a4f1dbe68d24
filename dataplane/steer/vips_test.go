package steer

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// inKernel returns the addresses in the map, with their values.
func inKernel(t *testing.T, f *Filter) map[netip.Addr]uint32 {
	t.Helper()
	got := make(map[netip.Addr]uint32)
	var key [16]byte
	var value uint32
	entries := f.objects.Maps[steerMapVips].Iterate()
	for entries.Next(&key, &value) {
		got[netip.AddrFrom16(key).Unmap()] = value
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSetVIPs(t *testing.T) {
	f := loaded(t)
	third := netip.MustParseAddr("192.0.2.1")
	for _, want := range [][]netip.Addr{
		{vip4, vip6},
		{vip4, vip6, third},
		{third, other6},
		{other6, other6, netip.AddrFrom16(third.As16())},
		{},
		{vip6},
	} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			if err := f.SetVIPs(want); err != nil {
				t.Fatal(err)
			}
			set := make(map[netip.Addr]bool)
			for _, vip := range want {
				set[vip.Unmap()] = true
			}
			got := inKernel(t, f)
			if len(got) != len(set) {
				t.Errorf("%d addresses in the kernel, want %d", len(got), len(set))
			}
			for vip := range set {
				if _, ok := got[vip]; !ok {
					t.Errorf("%s is not in the kernel", vip)
				}
			}
		})
	}
}

// An address in the old and the new set must not leave the map for a moment,
// so its entry, marked here, has to survive.
func TestSetVIPsKeepsEntries(t *testing.T) {
	f := loaded(t)
	if err := f.objects.Maps[steerMapVips].Update(vip4.As16(), uint32(42), ebpf.UpdateExist); err != nil {
		t.Fatal(err)
	}
	if err := f.SetVIPs([]netip.Addr{other4, vip4}); err != nil {
		t.Fatal(err)
	}
	if got := inKernel(t, f)[vip4]; got != 42 {
		t.Errorf("the entry of an unchanged VIP was written: value %d", got)
	}
}

func TestSetVIPsRefuses(t *testing.T) {
	f := loaded(t)
	tooMany := make([]netip.Addr, MaxVIPs+1)
	addr := netip.MustParseAddr("2001:db8::")
	for i := range tooMany {
		addr = addr.Next()
		tooMany[i] = addr
	}
	for name, vips := range map[string][]netip.Addr{
		"the zero address": {{}},
		"a zone":           {netip.MustParseAddr("fe80::1%eth0")},
		"too many":         tooMany,
	} {
		if err := f.SetVIPs(vips); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := inKernel(t, f); len(got) != 2 {
		t.Errorf("a refused set changed the kernel's: %v", got)
	}
	full := tooMany[:MaxVIPs]
	if err := f.SetVIPs(full); err != nil {
		t.Fatalf("as many as allowed: %v", err)
	}
	// All of them exchanged at once: the old ones are still there while the
	// new ones are added.
	for i := range full {
		addr = addr.Next()
		full[i] = addr
	}
	if err := f.SetVIPs(full); err != nil {
		t.Fatalf("as many as allowed, all new: %v", err)
	}
	if got := inKernel(t, f); len(got) != MaxVIPs {
		t.Errorf("%d addresses in the kernel, want %d", len(got), MaxVIPs)
	}
}

func TestClose(t *testing.T) {
	f := loaded(t)
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Beat(); err == nil {
		t.Error("a heartbeat after Close is no error")
	}
	if err := f.SetVIPs([]netip.Addr{other4}); err == nil {
		t.Error("SetVIPs after Close is no error")
	}
}
