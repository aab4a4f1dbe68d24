package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/site"
)

// TestLinkDownUp takes weir's interface down and up again, and pulls its cable
// out and puts it back. Forwarding goes on by itself.
func TestLinkDownUp(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode}, nil)
		_, finish := s.startLoad(site.DSR4, 20, 0)
		for _, c := range []struct {
			name     string
			down, up func(string) error
		}{
			{"interface", s.WeirHost.LinkDown, s.WeirHost.LinkUp},
			{"cable", s.WeirHost.Unplug, s.WeirHost.Plug},
		} {
			s.must(c.down(site.Front))
			s.await("the api says that the link is down", func() error {
				if s.iface(site.Front).Up {
					return fmt.Errorf("it says up")
				}
				return nil
			})
			s.must(c.up(site.Front))
			s.must(s.WaitReady(s.ctx))
			for _, vip := range s.VIPs() {
				t.Logf("%s: %s was served after %v", c.name, vip, s.served(vip))
			}
			s.wantDriver(site.Front, d)
		}
		if err := finish(); err != nil {
			t.Error(err)
		}
	}, xdpCopy, xdpGeneric, afPacket)
}

// TestInterfaceRemoved deletes one of weir's two interfaces. The other goes on,
// weir says what has happened, and takes the interface up again when it is back.
func TestInterfaceRemoved(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{TwoArmed: true, Driver: d.driver, XDPMode: d.xdpMode}, announceAlways)
		for _, gone := range []string{site.Back, site.Front} {
			other := site.Front
			if gone == site.Front {
				other = site.Back
			}
			s.must(s.WeirHost.LinkDelete(gone))
			s.await("the api says that it is gone", func() error {
				if i := s.iface(gone); i.Up || i.Error == "" {
					return fmt.Errorf("it says up %v, error %q", i.Up, i.Error)
				}
				return nil
			})
			t.Logf("%s: %s", gone, s.iface(gone).Error)
			if text, err := s.RunWeir(s.ctx, "show", "interfaces"); err != nil || !strings.Contains(text, s.iface(gone).Error) {
				t.Errorf("weir show interfaces does not say that %s is gone (%v):\n%s", gone, err, text)
			}
			if log := s.WeirLog(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "interface="+gone) {
				t.Errorf("weir has not logged that %s is gone", gone)
			}
			if i := s.iface(other); !i.Up || i.Error != "" || i.Workers != 1 {
				t.Errorf("%s is gone, and now %s is up %v with %d workers, error %q", gone, other, i.Up, i.Workers, i.Error)
			}
			if other == site.Front {
				if err := s.ping(s.DSR4.Addr()); err != nil {
					t.Errorf("the other interface does not answer: %v", err)
				}
			}
			s.must(s.ConnectWeir(gone))
			if gone == site.Back {
				s.must(s.WeirHost.LinkUp(gone))
			}
			start := time.Now()
			s.must(s.WaitReady(s.ctx))
			for _, vip := range s.VIPs() {
				s.served(vip)
			}
			t.Logf("%s is back, all is served after %v", gone, time.Since(start))
			s.wantDriver(gone, d)
		}
		for _, c := range []vipCase{{"dsr-4", s.DSR4}, {"ipip-6in6", s.IPIP6}} {
			t.Run(c.name, func(t *testing.T) { s.checkService(t, c.vip, megabyte) })
		}
	}, xdpCopy, xdpGeneric, afPacket)
}

// TestIdle lets weir do nothing, for which its workers have to sleep, and not to spin, which
// would take a core, or to look again and again.
func TestIdle(t *testing.T) {
	eachDriver(t, func(t *testing.T, d driver) {
		const (
			queues = 4
			share  = 0.2 // of a core: a worker that spins takes half of one at least; a machine in a bad way needs a tenth for what follows
			wakes  = 20  // of each worker, in a second
		)
		s := startSite(t, site.Options{Queues: queues, Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR}, func(c *site.Config) {
			c.Interfaces[0].Queues = strconv.Itoa(queues)
		})
		s.served(s.DSR4)
		time.Sleep(time.Second) // what the start has set off is over
		before := get[[]api.Worker](s, "workers")
		start, used := time.Now(), s.cpuTime()
		time.Sleep(3 * time.Second)
		used = s.cpuTime() - used
		over := time.Since(start).Seconds()
		t.Logf("%d idle workers used %v of CPU in %.2f s, %.2f %%", queues, used, over, 100*used.Seconds()/over)
		if used.Seconds()/over > share {
			t.Errorf("that is more than %.0f %%", 100*share)
		}
		for i, w := range get[[]api.Worker](s, "workers") {
			woken := w.Wakeups - before[i].Wakeups
			t.Logf("worker %d woke up %d times", i, woken)
			if woken == 0 || float64(woken)/over > wakes {
				t.Errorf("that is never, or more than %d times a second", wakes)
			}
		}
	}, xdpCopy, xdpGeneric, afPacket)
}

// cpuTime returns the CPU time that weir has used, from proc_pid_stat(5), in
// steps of 10 ms.
func (s *testSite) cpuTime() time.Duration {
	s.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Weir().PID()))
	s.must(err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks time.Duration
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		s.must(err)
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond // USER_HZ is 100 on all that weir runs on
}
