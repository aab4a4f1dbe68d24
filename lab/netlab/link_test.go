package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestLinkDownUp(t *testing.T) {
	a, b := pair(t, newLab(t))
	for _, step := range []struct {
		name    string
		off, on func(string) error
	}{
		{"link", b.LinkDown, b.LinkUp},
		{"cable", b.Unplug, b.Plug},
		{"far link", a.LinkDown, a.LinkUp},
	} {
		check(t, step.off("eth0"))
		if ping(a, "10.9.0.2") == nil || ping(a, "fd09::2") == nil {
			t.Errorf("%s: ping got through a link that is down", step.name)
		}
		check(t, step.on("eth0"))
		for _, address := range []string{"10.9.0.2", "fd09::2"} {
			reach(t, a, address)
		}
	}
	check(t, b.LinkDelete("eth0"))
	if _, err := b.Link("eth0"); err == nil {
		t.Error("deleted interface is still there")
	}
	if err := b.Plug("eth0"); err == nil {
		t.Error("deleted interface has a cable")
	}
}

// TestCable has both ends of a cable wait to be set up.
func TestCable(t *testing.T) {
	lab := newLab(t)
	a, b := must(lab.Host("a"))(t), must(lab.Host("b"))(t)
	check(t, a.Cable(b,
		Iface{Name: "eth0", MTU: 1400, Addrs: prefixes("10.9.0.1/24")},
		Iface{Name: "eth1", MTU: 1400, Addrs: prefixes("10.9.0.2/24")}))
	for host, name := range map[*Host]string{a: "eth0", b: "eth1"} {
		check(t, host.withLink("look", name, func(l netlink.Link) error {
			if attrs := l.Attrs(); attrs.Flags&net.FlagUp != 0 || attrs.MTU != 1400 {
				return fmt.Errorf("flags %s, mtu %d: want it down with 1400", attrs.Flags, attrs.MTU)
			}
			return nil
		}))
	}
	check(t, a.LinkUp("eth0"))
	if ping(a, "10.9.0.2") == nil {
		t.Error("ping got through a link whose other end is down")
	}
	check(t, b.LinkUp("eth1"))
	reach(t, a, "10.9.0.2")
}

func TestUnpluggedKeepsAdminState(t *testing.T) {
	a, _ := pair(t, newLab(t))
	check(t, a.Unplug("eth0"))
	check(t, a.withLink("look", "eth0", func(l netlink.Link) error {
		attrs := l.Attrs()
		if attrs.Flags&net.FlagUp == 0 || attrs.RawFlags&(1<<16) != 0 {
			return fmt.Errorf("flags %s, raw %#x: want up without carrier", attrs.Flags, attrs.RawFlags)
		}
		return nil
	}))
}

func TestSetMAC(t *testing.T) {
	a, b := pair(t, newLab(t))
	reach(t, a, "10.9.0.2")
	mac := net.HardwareAddr{2, 0, 0, 9, 9, 9}
	check(t, b.SetMAC("eth0", mac))
	if got := must(b.Link("eth0"))(t).MAC.String(); got != mac.String() {
		t.Errorf("mac is %s", got)
	}
	check(t, a.AddNeigh(netip.MustParseAddr("10.9.0.2"), mac, "eth0"))
	reach(t, a, "10.9.0.2")
	check(t, a.AddNeigh(netip.MustParseAddr("10.9.0.2"), net.HardwareAddr{2, 0, 0, 9, 9, 8}, "eth0"))
	if ping(a, "10.9.0.2") == nil {
		t.Error("a host answered to another MAC address than its own")
	}
}

func TestIfaceSettings(t *testing.T) {
	lab := newLab(t)
	sw := must(lab.Switch("a-switch-with-a-long-name"))(t)
	h := must(lab.Host("h"))(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x11}
	l := must(h.Connect(sw, Iface{Name: "eth1", MAC: mac, MTU: 1400, Queues: 3}))(t)
	if l.MAC.String() != mac.String() || l.Name != "eth1" || l.Index == 0 {
		t.Errorf("link %+v", l)
	}
	far := must(h.farEnd("eth1"))(t)
	for _, end := range []cableEnd{{h.ns, "eth1"}, far} {
		check(t, end.ns.do(func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return err
			}
			if a := l.Attrs(); a.MTU != 1400 || a.NumRxQueues != 3 || a.NumTxQueues != 3 {
				t.Errorf("%s: mtu %d, queues %d and %d", end.name, a.MTU, a.NumRxQueues, a.NumTxQueues)
			}
			tool, err := ethtool.NewEthtool()
			if err != nil {
				return err
			}
			defer tool.Close()
			features, err := tool.Features(end.name)
			if err != nil {
				return err
			}
			for _, name := range append(offloads, "tx-checksum-ip-generic") {
				if features[name] {
					t.Errorf("%s: %s is on", end.name, name)
				}
			}
			if _, ok := features["tx-checksum-ip-generic"]; !ok {
				t.Errorf("%s: the kernel has other names for features: %v", end.name, features)
			}
			return nil
		}))
	}
	queues := must(h.Run(t.Context(), "ls", "/sys/class/net/eth1/queues"))(t)
	if got := strings.Fields(queues); len(got) != 6 {
		t.Errorf("queues in sysfs: %v", got)
	}
}

// Flows through a switch have to reach all queues of a host that has several.
// An XDP program counts the frames by queue.
func TestMultiQueue(t *testing.T) {
	lab := newLab(t)
	sw := must(lab.Switch("sw"))(t)
	a, b := must(lab.Host("a"))(t), must(lab.Host("b"))(t)
	must(a.Connect(sw, Iface{Name: "eth0", Addrs: prefixes("10.9.0.1/24")}))(t)
	const queues = 2
	must(b.Connect(sw, Iface{Name: "eth0", Addrs: prefixes("10.9.0.2/24"), Queues: queues}))(t)

	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: queues})
	check(t, err)
	defer counts.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), // struct xdp_md: rx_queue_index
		asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
		asm.Return(),
	}})
	check(t, err)
	defer program.Close()
	index := must(b.Link("eth0"))(t).Index
	var attached link.Link
	check(t, b.Do(func() (err error) {
		attached, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPDriverMode})
		return err
	}))
	defer attached.Close()

	for range 32 { // each from another port
		exchange(t, a, b, "udp", "10.9.0.2:0")
	}
	for queue := range uint32(queues) {
		var frames uint64
		check(t, counts.Lookup(queue, &frames))
		t.Logf("queue %d: %d frames", queue, frames)
		if frames == 0 {
			t.Errorf("queue %d has received nothing", queue)
		}
	}
}

// Frames have to be whole where they are read before the kernel has them.
func TestFinishedChecksums(t *testing.T) {
	a, b := pair(t, newLab(t))
	sum := func(data []byte, sum uint32) uint32 {
		for i := 0; i+1 < len(data); i += 2 {
			sum += uint32(data[i])<<8 | uint32(data[i+1])
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		return sum
	}
	var fd *os.File
	check(t, b.Do(func() (err error) {
		fd, err = packetSocket("eth0")
		return err
	}))
	defer fd.Close()
	exchange(t, a, b, "udp", "10.9.0.2:7777")
	buf := make([]byte, 2000)
	for {
		n, err := fd.Read(buf)
		check(t, err)
		ip := buf[14:n]
		if n < 14+28 || ip[0] != 0x45 || ip[9] != 17 || ip[22] != 7777>>8 || ip[23] != 7777&0xff {
			continue
		}
		udp := ip[20 : 20+int(ip[24])<<8+int(ip[25])]
		if got := sum(udp, sum(ip[12:20], 17+uint32(len(udp)))); got != 0xffff {
			t.Errorf("datagram % x: checksum adds up to %#x", udp, got)
		}
		return
	}
}

// packetSocket reads all frames of an interface, in the namespace of the
// calling thread.
func packetSocket(name string) (*os.File, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "packet socket")
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: iface.Index, Protocol: all})
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
