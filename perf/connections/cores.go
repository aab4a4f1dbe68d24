package connections

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// cores tells the balancer's work from its neighbours'.
//
// The balancer has a CPU. What it does as a process is in the run time of its
// threads. What the kernel does with frames that come to it is done by a thread of
// its own (threaded NAPI, Documentation/networking/napi.rst), of real-time
// priority, so that it interrupts the process as softirq would. So a balancer in
// the kernel has a run time as well: that of this thread.
//
// What becomes of the frames that it sends, in the switch, the backends and the
// clients, is done by a second such thread, the switch's, and not charged to the
// balancer. It has the same CPU, and waits until the balancer has nothing to do:
// to wake up one on another CPU takes an interrupt there, which in a VM costs
// more than most of what is measured.
//
// Clients and backends have the other CPU, with all that is between them.
//
// A veth has NAPI only with GRO, which on a NIC is on anyway, or an XDP program.
// What comes to an XDP program on a veth is an sk_buff already and is made
// a frame again, which a NIC does not do; that is in the balancer's time.
type cores struct {
	balancer port
	switchs  port // at the other end of the balancer's cable
	others   int  // CPU of clients and backends
	own      int  // CPU of the balancer
}

// port is an interface with threaded NAPI.
type port struct {
	name    string
	do      func(func() error) error // in its network namespace
	threads []int
}

// newCores prepares the balancer's interface and the switch's.
func newCores(ctx context.Context, balancer *netlab.Host, sw *netlab.Switch, others, own int) (*cores, error) {
	link, err := sw.Port(balancer, device)
	if err != nil {
		return nil, err
	}
	c := &cores{
		balancer: port{name: device, do: balancer.Do},
		switchs:  port{name: link.Name, do: sw.Do},
		others:   others, own: own,
	}
	for _, p := range []struct {
		*port
		namespace string
		scheduler unix.SchedAttr
	}{
		{&c.balancer, balancer.Namespace(), unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}},
		{&c.switchs, sw.Namespace(), unix.SchedAttr{Policy: unix.SCHED_BATCH}},
	} {
		if err := p.makeThreaded(ctx, p.namespace); err != nil {
			return nil, err
		}
		p.scheduler.Size = unix.SizeofSchedAttr
		for _, tid := range p.threads {
			if err := errors.Join(setAffinity(tid, own), unix.SchedSetAttr(tid, &p.scheduler, 0)); err != nil {
				return nil, fmt.Errorf("set up NAPI thread %d of %s: %w", tid, p.name, err)
			}
		}
	}
	return c, nil
}

func (p *port) makeThreaded(ctx context.Context, namespace string) error {
	err := p.do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		return tool.Change(p.name, map[string]bool{"rx-gro": true})
	})
	if err != nil {
		return fmt.Errorf("switch GRO of %s on: %w", p.name, err)
	}
	set := fmt.Sprintf("echo 1 > /sys/class/net/%s/threaded", p.name)
	if out, err := exec.CommandContext(ctx, "ip", "netns", "exec", namespace, "sh", "-c", set).CombinedOutput(); err != nil {
		return fmt.Errorf("make NAPI of %s threaded (needs Linux 5.12): %w: %s", p.name, err, out)
	}
	if p.threads, err = p.napi(); err != nil {
		return fmt.Errorf("find NAPI threads of %s (needs Linux 6.8): %w", p.name, err)
	}
	return nil
}

// From linux/netdev.h.
const (
	netdevFamily      = "netdev"
	netdevNAPIGet     = 11 // NETDEV_CMD_NAPI_GET
	netdevNAPIIfindex = 1  // NETDEV_A_NAPI_IFINDEX
	netdevNAPIPID     = 4  // NETDEV_A_NAPI_PID
)

// napi returns the threads of the interface's NAPI instances.
func (p *port) napi() (threads []int, err error) {
	err = p.do(func() error {
		device, err := netlink.LinkByName(p.name)
		if err != nil {
			return err
		}
		family, err := netlink.GenlFamilyGet(netdevFamily)
		if err != nil {
			return err
		}
		request := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
		// nl.Genlmsg would leave its two reserved bytes to chance, and the kernel
		// wants zeros.
		header := []byte{netdevNAPIGet, 1, 0, 0}
		request.AddRawData(append(header, nl.NewRtAttr(netdevNAPIIfindex, nl.Uint32Attr(uint32(device.Attrs().Index))).Serialize()...))
		answers, err := request.Execute(unix.NETLINK_GENERIC, 0)
		if err != nil {
			return err
		}
		for _, a := range answers {
			attributes, err := nl.ParseRouteAttr(a[nl.SizeofGenlmsg:])
			if err != nil {
				return err
			}
			for _, at := range attributes {
				if at.Attr.Type == netdevNAPIPID {
					threads = append(threads, int(binary.NativeEndian.Uint32(at.Value)))
				}
			}
		}
		return nil
	})
	if err == nil && len(threads) == 0 {
		err = errors.New("there are none")
	}
	return threads, err
}

// time returns how long the threads have run.
func (p *port) time() (sum time.Duration, err error) {
	for _, tid := range p.threads {
		t, err := measure.ReadThread(tid, tid)
		if err != nil {
			return 0, err
		}
		sum += t.Ran
	}
	return sum, nil
}

// pin keeps all threads of a process on a CPU. Those that it starts later are
// where those are that start them, so it is pinned when no thread is new.
func pin(pid, cpu int) error {
	pinned := make(map[int]bool)
	for fresh := true; fresh; {
		fresh = false
		threads, err := threadsOf(pid)
		if err != nil {
			return fmt.Errorf("pin process %d: %w", pid, err)
		}
		for _, tid := range threads {
			if pinned[tid] {
				continue
			}
			fresh, pinned[tid] = true, true
			if err := setAffinity(tid, cpu); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("pin process %d to cpu %d: %w", pid, cpu, err)
			}
		}
	}
	return nil
}

func setAffinity(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(tid, &set)
}

func threadsOf(pid int) (threads []int, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("list threads: %w", err)
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("list threads: %w", err)
		}
		threads = append(threads, tid)
	}
	return threads, nil
}

// usage is the time that was used so far.
type usage struct {
	process  time.Duration // by the balancer's threads
	kernel   time.Duration // by the kernel for what comes to the balancer
	delivery time.Duration // by the kernel for what the balancer sends
	idle     time.Duration // by nobody, of the balancer's CPU
	others   time.Duration // by nobody, of the clients' and backends' CPU
}

func (u usage) since(before usage) usage {
	return usage{
		u.process - before.process, u.kernel - before.kernel, u.delivery - before.delivery, u.idle - before.idle, u.others - before.others,
	}
}

// usage reads it. Without a process pid is 0. The time of a thread that has ended
// is not in it: those of the proxies do not, and Go keeps its threads.
func (c *cores) usage(pid int) (u usage, err error) {
	if pid != 0 {
		threads, err := threadsOf(pid)
		if err != nil {
			return u, err
		}
		for _, tid := range threads {
			t, err := measure.ReadThread(pid, tid)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return u, err
			}
			u.process += t.Ran
		}
	}
	var errs [4]error
	u.kernel, errs[0] = c.balancer.time()
	u.delivery, errs[1] = c.switchs.time()
	u.idle, errs[2] = readIdle(c.own)
	u.others, errs[3] = readIdle(c.others)
	return u, errors.Join(errs[:]...)
}

// readIdle returns how long a CPU had nothing to do
// (Documentation/filesystems/proc.rst, section 1.7). Of all that /proc/stat has,
// this the kernel does not estimate.
func readIdle(cpu int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		const idle, waiting = 4, 5
		if fields[0] != fmt.Sprintf("cpu%d", cpu) || len(fields) <= waiting {
			continue
		}
		a, errIdle := strconv.ParseFloat(fields[idle], 64)
		b, errWaiting := strconv.ParseFloat(fields[waiting], 64)
		const ticks = 100 // USER_HZ
		return time.Duration((a + b) / ticks * float64(time.Second)), errors.Join(errIdle, errWaiting)
	}
	return 0, fmt.Errorf("read idle time: no cpu %d in /proc/stat", cpu)
}
