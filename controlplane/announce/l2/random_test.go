package l2

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/dataplane/packet"
)

// Whatever happens to three nodes and the network between them: when it is quiet,
// an address has exactly one owner if any node could be that, neighbours know it,
// and as long as nothing happens nothing moves.
func TestWhateverHappens(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &chaos{
					world: newWorld(t), rand: rand.New(rand.NewPCG(seed, 1)),
					addrs: vips(12), node: make(map[string]*weir),
					up: map[string]bool{"lb1": true, "lb2": true, "lb3": true},
				}
				for name := range c.up {
					c.start(name)
				}
				for range 12 {
					for range 1 + c.rand.IntN(4) {
						c.event()
						wait(time.Duration(c.rand.IntN(1500)) * time.Millisecond)
					}
					c.calm()
				}
				c.check()
			})
		})
	}
}

type chaos struct {
	*world
	rand  *rand.Rand
	addrs []netip.Addr
	node  map[string]*weir // that run
	up    map[string]bool  // whose links are
	torn  bool
	did   []string
}

var names = [...]string{"lb1", "lb2", "lb3"}

func (c *chaos) start(name string) {
	n := c.make(name, true)
	n.SetInterfaces(eth1(name, c.up[name]))
	n.Set(advertise(c.addrs...))
	c.node[name] = n
	n.run()
}

func (c *chaos) event() {
	name := names[c.rand.IntN(3)]
	n := c.node[name]
	did := ""
	switch c.rand.IntN(7) {
	case 0:
		if n != nil {
			did = "kill"
			n.stop()
			delete(c.node, name)
		}
	case 1, 2:
		if n == nil {
			did = "start"
			c.start(name)
		}
	case 3:
		did = "link"
		c.up[name] = !c.up[name]
		if n != nil {
			n.SetInterfaces(eth1(name, c.up[name]))
		}
	case 4:
		did = "tear or mend"
		c.torn = !c.torn
		link := c.rand.IntN(2) == 0
		for _, other := range names {
			if other != name {
				c.part(c.torn, c.torn && link, pair(name, other))
			}
		}
		if !c.torn {
			for i, a := range names {
				for _, b := range names[i+1:] {
					c.part(false, false, pair(a, b))
				}
			}
		}
	case 5:
		did = "intruder"
		a := c.addrs[c.rand.IntN(len(c.addrs))]
		c.occupy(a, packetMAC(1))
		c.say(a, packetMAC(1), false)
		time.AfterFunc(time.Duration(c.rand.IntN(4000))*time.Millisecond, func() { c.occupy(a, packet.MAC{}) })
	case 6:
		if n != nil {
			did = "other services"
			n.Set(advertise(c.addrs[c.rand.IntN(4):]...))
			time.AfterFunc(time.Duration(c.rand.IntN(3000))*time.Millisecond, func() { n.Set(advertise(c.addrs...)) })
		}
	}
	c.did = append(c.did, fmt.Sprintf("%v %s %s", c.now(), did, name))
}

// calm mends what is torn, lets everything settle, and looks.
func (c *chaos) calm() {
	c.torn = false
	for i, a := range names {
		for _, b := range names[i+1:] {
			c.part(false, false, pair(a, b))
		}
	}
	// Long enough for intruders to be gone and to be forgotten, and then for all
	// bursts to end.
	wait(5*time.Second + 2*conflictMax + 10*time.Second)
	before := make(map[netip.Addr]int)
	could := false
	for name := range c.node {
		could = could || c.up[name]
	}
	for _, a := range c.addrs {
		if !could {
			if got := c.holders(a); len(got) != 0 {
				c.fail1("%v is held by %v, who cannot", a, got)
			}
			continue
		}
		if got := c.holders(a); len(got) != 1 || !c.up[got[0]] {
			c.fail1("%v is held by %v", a, got)
		}
		c.owner(a)
		before[a] = c.count(a)
	}
	wait(3 * Interval)
	for a, n := range before {
		if c.count(a) != n {
			c.fail1("%v has moved and nothing has happened", a)
		}
		c.owner(a)
	}
}

func (c *chaos) fail1(format string, args ...any) {
	c.t.Helper()
	var status []string
	for _, name := range names {
		if n := c.node[name]; n != nil {
			status = append(status, fmt.Sprintf("%s: %+v", name, n.Status()))
		}
	}
	c.t.Fatalf(format+"\n%s\n%s\n%s", append(args, strings.Join(c.did, "\n"), c.story(), strings.Join(status, "\n"))...)
}
