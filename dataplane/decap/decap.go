// Package decap is the backend's end of IPIP: an XDP program that takes the
// outer header off packets that weir has tunnelled to this host.
//
// The problem it solves: to receive IPIP, a backend otherwise needs a tunnel
// device per kind (tunl0, sit0, ip6tnl0), each with addresses, rp_filter and
// MTU of its own, and the kernel modules behind them, which containers' hosts
// and small VM images often lack. Here the outer header is gone before the
// kernel looks: a packet for a VIP seems to have come straight from the client.
// All four kinds work: IPv4 and IPv6 in IPv4 and IPv6 (RFC 2003, RFC 2473,
// RFC 4213), with ECN carried over as RFC 6040 has it.
//
// A packet is stripped only if all of this holds; any other goes to the kernel
// with no bit changed, so that the host's own tunnels keep working:
//
//   - at most one 802.1Q tag, then a sane outer header that is no fragment and
//     says protocol 4 or 41 at once, without IPv6 extension headers;
//   - the outer destination is one of the host's own unicast addresses;
//   - the outer source is in [Options].Sources, if those are given;
//   - a sane inner header whose destination is one of the VIPs.
//
// The program is attached by a bpf_link and is gone when the process is. It
// never takes the place of another XDP program.
package decap

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/xdplink"
)

//go:generate go tool bpf2go -tags linux -target bpfel -type counter decap bpf/decap.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// ErrClosed is returned by Counters after Close.
var ErrClosed = errors.New("decap closed")

// Options says what to strip, and where.
type Options struct {
	// Interface is the name of the NIC on which tunnelled packets arrive, in
	// the network namespace of the thread that calls New.
	Interface string

	// VIPs are the inner destinations that are stripped for. At least one.
	VIPs []netip.Addr

	// Sources are the outer sources that are believed: weir's addresses. None
	// means any, which lets whoever can reach this host send to a VIP in any
	// client's name.
	Sources []netip.Prefix

	// Generic asks for generic mode at once. Otherwise native mode is tried
	// first, and generic mode is the fallback, with a warning.
	Generic bool

	// Log receives the warnings; nil means slog.Default().
	Log *slog.Logger
}

// Decap is the attached program. Its methods may be called by any goroutine.
type Decap struct {
	log  *slog.Logger
	nic  string
	mode xdplink.Mode

	mu      sync.Mutex // guards what follows
	closed  bool
	objects decapObjects
	link    link.Link
	locals  map[decapPrefix]struct{} // what the map of the same name holds
}

// New loads the program, attaches it to the NIC, and logs a warning for each
// finding of [Check]. It reads the host's addresses once; [Decap.Run] keeps up
// with them.
//
// It fails with a *[xdplink.ForeignProgramError] if the NIC has an XDP program
// already. It needs CAP_BPF, CAP_NET_ADMIN and Linux 5.9.
func New(opt Options) (*Decap, error) {
	vips, sources, err := opt.validate()
	if err != nil {
		return nil, err
	}
	nic, err := netlink.LinkByName(opt.Interface)
	if err != nil {
		return nil, fmt.Errorf("decap: interface %q: %w; \"ip link\" lists those there are", opt.Interface, err)
	}
	d := &Decap{log: opt.Log, nic: opt.Interface}
	if d.log == nil {
		d.log = slog.Default()
	}
	if err := d.load(vips, sources); err != nil {
		return nil, err
	}
	err = d.readLocals()
	if err == nil {
		err = d.attach(nic.Attrs().Index, opt.Generic)
	}
	if err != nil {
		d.Close()
		return nil, err
	}

	warnings, err := Check(opt.Interface, opt.VIPs)
	if err != nil {
		d.log.Warn("host not checked for what decapsulation needs", "err", err)
	}
	for _, w := range warnings {
		d.log.Warn(w.Problem, "interface", opt.Interface, "fix", w.Fix)
	}
	return d, nil
}

// validate returns the keys for the vips and the sources map.
func (opt *Options) validate() (vips map[decapAddress]struct{}, sources map[decapPrefix]struct{}, err error) {
	if len(opt.VIPs) == 0 {
		return nil, nil, errors.New("decap: no VIPs: nothing would be stripped; give at least one")
	}
	vips = make(map[decapAddress]struct{}, len(opt.VIPs))
	for _, vip := range opt.VIPs {
		vip = vip.Unmap()
		if !vip.IsValid() || vip.IsUnspecified() || vip.IsMulticast() || vip.IsLoopback() || vip.Zone() != "" {
			return nil, nil, fmt.Errorf("decap: VIP %s: must be a unicast address without a zone", vip)
		}
		vips[addressKey(vip)] = struct{}{}
	}
	sources = make(map[decapPrefix]struct{}, len(opt.Sources))
	for _, source := range opt.Sources {
		if !source.IsValid() || source.Addr().Is4In6() {
			return nil, nil, fmt.Errorf("decap: source %s: must be an IPv4 or IPv6 prefix", source)
		}
		sources[prefixKey(source)] = struct{}{}
	}
	if len(sources) == 0 {
		sources[anyAddress] = struct{}{}
	}
	return vips, sources, nil
}

// load brings program and maps into the kernel; on an error nothing stays.
func (d *Decap) load(vips map[decapAddress]struct{}, sources map[decapPrefix]struct{}) error {
	if err := rlimit.RemoveMemlock(); err != nil { // only kernels before 5.11 charge maps to it
		return fmt.Errorf("decap: raise RLIMIT_MEMLOCK: %w; run as root", err)
	}
	spec, err := loadDecap()
	if err != nil {
		return fmt.Errorf("decap: read the embedded program: %w", err)
	}
	spec.Maps[decapMapVips].MaxEntries = uint32(len(vips))
	spec.Maps[decapMapSources].MaxEntries = uint32(len(sources))
	if err := spec.LoadAndAssign(&d.objects, nil); err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("decap: load the XDP program: %w; run as root, or with CAP_BPF and CAP_NET_ADMIN", err)
		}
		return fmt.Errorf("decap: load the XDP program: %w", err)
	}
	err = fill(d.objects.Vips, vips)
	if err == nil {
		err = fill(d.objects.Sources, sources)
	}
	if err != nil {
		d.objects.Close()
		return err
	}
	return nil
}

func fill[K comparable](m *ebpf.Map, keys map[K]struct{}) error {
	for key := range keys {
		if err := m.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("decap: fill map %s: %w", m, err)
		}
	}
	return nil
}

func (d *Decap) attach(ifindex int, generic bool) error {
	mode := xdplink.Native
	if generic {
		mode = xdplink.Generic
	}
	l, err := xdplink.Attach(d.objects.WeirDecap, ifindex, mode)
	if errors.Is(err, xdplink.ErrMode) {
		d.log.Warn("the driver does not take the XDP program; using the slower generic mode",
			"interface", d.nic, "err", err)
		mode = xdplink.Generic
		l, err = xdplink.Attach(d.objects.WeirDecap, ifindex, mode)
	}
	if err != nil {
		return fmt.Errorf("decap: %w", err)
	}
	d.link, d.mode = l, mode
	return nil
}

// Mode returns where the program runs: "native" or "generic".
func (d *Decap) Mode() string { return d.mode.String() }

// Close detaches the program and frees it. It may be called twice.
func (d *Decap) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var detach error
	if d.link != nil {
		detach = d.link.Close()
	}
	if err := errors.Join(detach, d.objects.Close()); err != nil {
		return fmt.Errorf("decap: close: %w", err)
	}
	return nil
}
