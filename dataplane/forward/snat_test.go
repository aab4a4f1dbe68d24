package forward_test

import (
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// A SNAT address with another range of ports from now on takes the flows with it
// whose ports are in the range no longer: nothing of those is sent to a backend
// by the old port, and its answers go nowhere. The others stay.
func TestPortRangeChanges(t *testing.T) {
	for _, v := range natVariants() {
		if natBackendOf(v.vip).mode != snapshot.NAT {
			continue
		}
		for _, test := range []struct {
			lo, hi uint16
			stays  bool
		}{{snatPort, snatPort + 63, true}, {snatPort - 64, snatPort - 1, false}, {snatPort + 1, snatPort + 64, false}} {
			m := natMachine(t, 1, 1, snatPort, snatPort)
			m.put(0, 0, packettest.Frame(to(v.vip)))
			was := read(t, m.settle()[0].frame).wire
			m.adopt(must(snapshot.New(natSpec(m.space, test.lo, test.hi))))
			m.put(0, 1, packettest.Frame(answerTo(to(v.vip))))
			answers := m.settle()
			m.put(0, 0, packettest.Frame(ack(to(v.vip), "")))
			sent := m.settle()
			if test.stays {
				if len(answers) != 1 || len(sent) != 1 || read(t, sent[0].frame).wire != was {
					t.Errorf("%s, %d-%d: the flow does not stay; drops %v", v.name, test.lo, test.hi, m.drops())
				}
				continue
			}
			drops := m.workers[0].counters.Drops[stats.NoFlow]
			if len(answers) != 0 || drops != 1 || len(sent) != 1 || read(t, sent[0].frame).dst != to(v.vip).Src ||
				m.workers[0].counters.Rejects != 1 {
				t.Errorf("%s, %d-%d: %d answers, then %+v; drops %v", v.name, test.lo, test.hi, len(answers), sent, m.drops())
			}
			m.put(0, 0, packettest.Frame(to(v.vip)))
			anew := m.settle()
			if len(anew) != 1 || packet.MAC(anew[0].frame) == clientMAC {
				t.Fatalf("%s, %d-%d: a new connection became %+v; drops %v", v.name, test.lo, test.hi, anew, m.drops())
			}
			if port := read(t, anew[0].frame).src.Port(); port < test.lo || port > test.hi {
				t.Errorf("%s, %d-%d: a new connection has port %d", v.name, test.lo, test.hi, port)
			}
			m.check(t)
			m.over()
		}
	}
}
