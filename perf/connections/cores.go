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

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/perf/measure"
)

// cores divides the CPUs as if balancer and neighbours were two machines. All
// that is the balancer's runs on one of them: its process, and, as a thread of
// its own, the kernel's work on the frames that come to it (threaded NAPI,
// Documentation/networking/napi.rst). That thread has real-time priority, so it
// interrupts the process as softirq would. With it, what a balancer in the kernel
// does can be measured as well: it is that thread's run time.
//
// All others are on the other CPU, and what the kernel has to do for them when
// the balancer sends is done there too: RPS (Documentation/networking/scaling.rst)
// at the switch's end of the balancer's cable hands over each frame as soon as
// it is through the cable. So the balancer is charged with sending it, as with a
// NIC, and not with what becomes of it.
//
// GRO is on at the balancer's interface, as it is on a NIC: a veth has NAPI only
// then, or with an XDP program.
type cores struct {
	host   *netlab.Host
	device string
	others int // CPU
	own    int // CPU
}

// divide prepares the balancer's interface, and the switch that it is cabled to.
func (c *cores) divide(ctx context.Context, sw *netlab.Switch) error {
	err := c.host.Do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		return tool.Change(c.device, map[string]bool{"rx-gro": true})
	})
	if err != nil {
		return fmt.Errorf("switch GRO of %s on: %w", c.device, err)
	}
	set := fmt.Sprintf("echo 1 > /sys/class/net/%s/threaded", c.device)
	if _, err := c.host.Run(ctx, "sh", "-c", set); err != nil {
		return fmt.Errorf("make NAPI of %s threaded (needs Linux 5.12): %w", c.device, err)
	}
	port, err := sw.Port(c.host, c.device)
	if err != nil {
		return err
	}
	set = fmt.Sprintf("echo %s > /sys/class/net/%s/queues/rx-0/rps_cpus", cpuMask(c.others), port.Name)
	if out, err := exec.CommandContext(ctx, "ip", "netns", "exec", sw.Namespace(), "sh", "-c", set).CombinedOutput(); err != nil {
		return fmt.Errorf("set RPS of the switch's port (needs a kernel with CONFIG_RPS): %w: %s", err, out)
	}
	threads, err := c.napi()
	if err != nil {
		return err
	}
	for _, tid := range threads {
		err := errors.Join(
			setAffinity(tid, c.own),
			unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0))
		if err != nil {
			return fmt.Errorf("pin NAPI thread %d of %s: %w", tid, c.device, err)
		}
	}
	return nil
}

// cpuMask is a CPU as the kernel writes masks: hexadecimal, in groups of 32.
func cpuMask(cpu int) string {
	return fmt.Sprintf("%x", uint32(1)<<(cpu%32)) + strings.Repeat(",00000000", cpu/32)
}

// From linux/netdev.h.
const (
	netdevFamily      = "netdev"
	netdevNAPIGet     = 11 // NETDEV_CMD_NAPI_GET
	netdevNAPIIfindex = 1  // NETDEV_A_NAPI_IFINDEX
	netdevNAPIPID     = 4  // NETDEV_A_NAPI_PID
)

// napi returns the threads of the interface's NAPI instances.
func (c *cores) napi() (threads []int, err error) {
	err = c.host.Do(func() error {
		device, err := netlink.LinkByName(c.device)
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
	if err != nil {
		return nil, fmt.Errorf("find NAPI threads of %s (needs Linux 6.8): %w", c.device, err)
	}
	return threads, nil
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

// usage is what the balancer has used so far.
type usage struct {
	process measure.ThreadTime
	kernel  measure.ThreadTime // its NAPI threads
	idle    float64            // seconds that its CPU had nothing to do
	others  float64            // likewise, of the others' CPU
}

func (u usage) since(before usage) usage {
	return usage{u.process.Since(before.process), u.kernel.Since(before.kernel), u.idle - before.idle, u.others - before.others}
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
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return u, err
			}
			u.process.Ran += t.Ran
			u.process.Waited += t.Waited
		}
	}
	threads, err := c.napi()
	if err != nil {
		return u, err
	}
	for _, tid := range threads {
		t, err := measure.ReadThread(tid, tid)
		if err != nil {
			return u, err
		}
		u.kernel.Ran += t.Ran
		u.kernel.Waited += t.Waited
	}
	if u.idle, err = readIdle(c.own); err != nil {
		return u, err
	}
	u.others, err = readIdle(c.others)
	return u, err
}

// readIdle returns how many seconds a CPU had nothing to do
// (Documentation/filesystems/proc.rst, section 1.7). Of all that /proc/stat has,
// this the kernel does not estimate.
func readIdle(cpu int) (float64, error) {
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
		return (a + b) / ticks, errors.Join(errIdle, errWaiting)
	}
	return 0, fmt.Errorf("read idle time: no cpu %d in /proc/stat", cpu)
}
