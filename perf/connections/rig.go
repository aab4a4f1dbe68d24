package connections

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
	"weir/perf/measure"
	"weir/perf/peers"
)

// Addresses of the network, which is one segment.
var (
	network  = netip.MustParsePrefix("10.0.0.0/24")
	vip      = netip.MustParseAddrPort("10.0.0.200:80")
	own      = netip.MustParseAddr("10.0.0.2") // of the balancer
	snat     = netip.MustParsePrefix("10.0.0.224/28")
	client1  = netip.MustParseAddr("10.0.0.100") // and those that follow
	backend1 = netip.MustParseAddr("10.0.0.11")  // and those that follow
)

const (
	device          = "eth0"
	backends        = 3
	clientAddresses = 16
)

// rig is a network with clients, a balancer and backends at work.
type rig struct {
	lab       *netlab.Lab
	sw        *netlab.Switch
	client    *netlab.Host
	balancer  *netlab.Host
	hosts     []*netlab.Host // of backends
	backends  []peers.Backend
	clientsAt []netip.Addr
	dir       string // of a subject's files
	cores     *cores
	servers   *measure.Asked
	clients   *measure.Asked
	subject   *running
}

// running is a subject at work.
type running struct {
	pid  int              // of its process, 0 if it has none
	to   []netip.AddrPort // that clients connect to
	stop func() error     // may be nil
}

func newRig(ctx context.Context, opt *Options, cell *Cell) (_ *rig, err error) {
	r := &rig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = os.MkdirTemp("", "weir-connections-"); err != nil {
		return nil, err
	}
	if err := r.build(cell.Subject); err != nil {
		return nil, err
	}
	if r.cores, err = newCores(ctx, r.balancer, r.sw, opt.CPUs[0], opt.CPUs[1]); err != nil {
		return nil, err
	}
	if err := r.serve(ctx, opt); err != nil {
		return nil, err
	}
	if r.subject, err = r.start(ctx, opt, cell.Subject); err != nil {
		return nil, err
	}
	if r.subject.pid != 0 {
		if err := pin(r.subject.pid, r.cores.own); err != nil {
			return nil, err
		}
	}
	return r, r.connect(opt, cell.Load)
}

// build makes the hosts.
func (r *rig) build(subject Subject) (err error) {
	if r.lab, err = netlab.New("connections"); err != nil {
		return err
	}
	if r.sw, err = r.lab.Switch("sw"); err != nil {
		return err
	}
	host := func(name string, first netip.Addr, addresses int) (*netlab.Host, error) {
		h, err := r.lab.Host(name)
		if err != nil {
			return nil, err
		}
		iface := netlab.Iface{Name: device}
		for a := first; len(iface.Addrs) < addresses; a = a.Next() {
			iface.Addrs = append(iface.Addrs, netip.PrefixFrom(a, network.Bits()))
		}
		_, err = h.Connect(r.sw, iface)
		// Proxies and clients need ports, and have all that there are.
		return h, errors.Join(err, h.Sysctl("net.ipv4.ip_local_port_range", "1024 65535"))
	}
	if r.client, err = host("client", client1, clientAddresses); err != nil {
		return err
	}
	for a := client1; len(r.clientsAt) < clientAddresses; a = a.Next() {
		r.clientsAt = append(r.clientsAt, a)
	}
	if r.balancer, err = host("balancer", own, 1); err != nil {
		return err
	}
	for a := backend1; len(r.hosts) < backends; a = a.Next() {
		h, err := host(fmt.Sprintf("b%d", len(r.hosts)+1), a, 1)
		if err != nil {
			return err
		}
		link, err := h.Link(device)
		if err != nil {
			return err
		}
		if subject.direct() {
			if err := h.ServeVIP(vip.Addr()); err != nil {
				return err
			}
		}
		r.hosts, r.backends = append(r.hosts, h), append(r.backends, peers.Backend{Addr: a, MAC: link.MAC})
	}
	return r.introduce()
}

// introduce has everybody know everybody's MAC address, so that nothing is lost
// while hundreds ask for it at once.
func (r *rig) introduce() error {
	client, err := r.client.Link(device)
	if err != nil {
		return err
	}
	balancer, err := r.balancer.Link(device)
	if err != nil {
		return err
	}
	errs := []error{r.client.AddNeigh(vip.Addr(), balancer.MAC, device)}
	for _, h := range append(r.hosts, r.balancer) {
		for _, a := range r.clientsAt {
			errs = append(errs, h.AddNeigh(a, client.MAC, device))
		}
	}
	for i, b := range r.backends {
		errs = append(errs,
			r.client.AddNeigh(b.Addr, b.MAC, device),
			r.balancer.AddNeigh(b.Addr, b.MAC, device),
			r.hosts[i].AddNeigh(own, balancer.MAC, device))
		for a := snat.Addr(); snat.Contains(a); a = a.Next() {
			errs = append(errs, r.hosts[i].AddNeigh(a, balancer.MAC, device))
		}
	}
	return errors.Join(errs...)
}

// direct says whether backends hold the VIP, and answer clients directly.
func (s Subject) direct() bool { return s == WeirDSR || s == NftDSR || s == IPVS }

// serve starts the backends' servers.
func (r *rig) serve(ctx context.Context, opt *Options) (err error) {
	if r.servers, err = startServers(ctx, &opt.Setup, r.hosts, fmt.Sprintf(":%d", vip.Port())); err != nil {
		return err
	}
	return pin(r.servers.Process.PID(), r.cores.others)
}

// connect starts the clients.
func (r *rig) connect(opt *Options, load Load) (err error) {
	c := clientOptions{To: r.subject.to, From: r.clientsAt, Number: opt.Clients, Backends: backends, Patience: opt.Patience}
	if load == Paced {
		c.Rate = opt.Rate
	}
	if r.clients, err = startClients(r.client, &opt.Setup, c); err != nil {
		return err
	}
	return pin(r.clients.Process.PID(), r.cores.others)
}

// frames returns how many frames have gone to the balancer and come from it.
func (r *rig) frames() (in, out uint64, err error) {
	port, err := r.sw.Port(r.balancer, device)
	if err != nil {
		return 0, 0, err
	}
	err = r.sw.Do(func() error {
		link, err := netlink.LinkByIndex(port.Index)
		if err == nil {
			in, out = link.Attrs().Statistics.TxPackets, link.Attrs().Statistics.RxPackets
		}
		return err
	})
	return in, out, err
}

// close ends everything and removes it. What was not got to is nil.
func (r *rig) close() error {
	var errs []error
	if r.subject != nil && r.subject.stop != nil {
		errs = append(errs, r.subject.stop())
	}
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}
