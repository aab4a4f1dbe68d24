package afpacket

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachGuard puts prog, which drops weir's frames, between the packet sockets
// and the rest of the kernel. It returns what takes it away again and a word
// for how it is attached.
//
// A TCX link goes away with the process, however that ends. Before Linux 6.6,
// or if classifier is set, it is a filter on a clsact qdisc instead. That one
// stays when the process is killed, but stops dropping when its heart does.
func attachGuard(prog *ebpf.Program, ifindex int, classifier bool) (io.Closer, string, error) {
	if !classifier {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: ifindex,
			Program:   prog,
			Attach:    ebpf.AttachTCXIngress,
			Anchor:    link.Head(),
		})
		if err == nil {
			return l, "tcx", nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, "", fmt.Errorf("attach tc program: %w", err)
		}
	}
	c, err := attachClassifier(prog, ifindex)
	if err != nil {
		return nil, "", err
	}
	return c, "cls_bpf", nil
}

// What tells our filter on the qdisc from others.
const (
	filterHandle   = 0x77656972 // "weir" in ASCII
	filterPriority = 1          // before the others
)

// classifier is prog as a cls_bpf filter in direct-action mode (tc-bpf(8)).
type classifier struct {
	ifindex int
	program ebpf.ProgramID
	filter  *netlink.BpfFilter

	mu      sync.Mutex
	nl      *netlink.Handle // stays in its network namespace; nil once closed
	created *netlink.Clsact // nil if somebody else's qdisc was there before
}

// attachClassifier replaces a filter that an earlier weir left behind.
func attachClassifier(prog *ebpf.Program, ifindex int) (*classifier, error) {
	info, err := prog.Info()
	if err != nil {
		return nil, fmt.Errorf("read tc program's id: %w", err)
	}
	id, _ := info.ID()
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &classifier{ifindex: ifindex, program: id, nl: nl}

	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
	switch err := nl.QdiscAdd(qdisc); {
	case err == nil:
		c.created = qdisc
	case !errors.Is(err, unix.EEXIST):
		return nil, errors.Join(fmt.Errorf("add clsact qdisc (needs CONFIG_NET_SCH_INGRESS): %w", err), c.Close())
	default:
		// With the filter of a weir that was killed, its qdisc is taken over too.
		filters, err := c.list(netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if slices.ContainsFunc(filters, isWeirs) {
			c.created = qdisc
		}
	}

	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    netlink.HANDLE_MIN_INGRESS,
			Handle:    filterHandle,
			Priority:  filterPriority,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           prog.FD(),
		Name:         "weir",
		DirectAction: true,
	}
	if err := nl.FilterReplace(filter); err != nil {
		return nil, errors.Join(
			fmt.Errorf("add cls_bpf filter (needs CONFIG_NET_CLS_BPF, and no filter of another kind at priority %d): %w",
				filterPriority, err), c.Close())
	}
	c.filter = filter
	return c, nil
}

// Close removes the filter, unless another weir has replaced it, and the qdisc
// if it was created here and nobody else uses it by now. It may be called
// twice.
func (c *classifier) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nl == nil {
		return nil
	}
	defer func() {
		c.nl.Close()
		c.nl = nil
	}()
	err := c.detach()
	if errors.Is(err, unix.ENODEV) {
		return nil // the interface took all of it along
	}
	return err
}

func (c *classifier) detach() error {
	if c.filter != nil {
		filters, err := c.list(netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return err
		}
		for _, f := range filters {
			if !c.owns(f) {
				continue
			}
			if err := c.nl.FilterDel(c.filter); err != nil {
				return fmt.Errorf("remove cls_bpf filter: %w", err)
			}
		}
	}
	if c.created == nil {
		return nil
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if filters, err := c.list(parent); err != nil || len(filters) > 0 {
			return err
		}
	}
	if err := c.nl.QdiscDel(c.created); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove clsact qdisc: %w", err)
	}
	return nil
}

// isWeirs tells a weir's filter from others.
func isWeirs(f netlink.Filter) bool {
	bpf, ok := f.(*netlink.BpfFilter)
	return ok && bpf.Handle == filterHandle && bpf.Priority == filterPriority
}

// owns tells our own filter, with our program, from those of other weirs too.
func (c *classifier) owns(f netlink.Filter) bool {
	return isWeirs(f) && f.(*netlink.BpfFilter).Id == int(c.program)
}

func (c *classifier) list(parent uint32) ([]netlink.Filter, error) {
	nic := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: c.ifindex}}
	filters, err := c.nl.FilterList(nic, parent)
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	return filters, nil
}
