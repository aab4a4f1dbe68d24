package l2

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestNodesKnowEachOthersAddresses(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := w.with([]netip.Addr{vip4()}, "lb1", "lb2")
		all[0].SetAddresses([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")})
		wait(5 * time.Second)
		if got := fmt.Sprint(all[1].Nodes()); got != "[10.0.0.1 192.0.2.1]" {
			t.Errorf("lb2 knows %v", got)
		}
		if got := all[0].Nodes(); len(got) != 0 {
			t.Errorf("lb1 knows %v", got)
		}
	})
}
