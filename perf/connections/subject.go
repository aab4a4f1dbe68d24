package connections

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"weir/lab/netlab"
	"weir/lab/site"
	"weir/perf/measure"
	"weir/perf/peers"
)

// start starts a subject and waits until it takes connections.
func (r *rig) start(ctx context.Context, opt *Options, subject Subject) (*running, error) {
	switch subject {
	case Direct:
		s := &running{}
		for _, b := range r.backends {
			s.to = append(s.to, netip.AddrPortFrom(b.Addr, vip.Port()))
		}
		return s, nil
	case WeirDSR:
		return r.startWeir(ctx, opt, "dsr")
	case WeirNAT:
		return r.startWeir(ctx, opt, "nat")
	case HAProxy:
		return r.startProxy(ctx, haproxyProgram, r.haproxyText(), func(file string) []string { return []string{"-db", "-f", file} })
	case Nginx:
		return r.startProxy(ctx, nginxProgram, r.nginxText(), func(file string) []string { return []string{"-p", r.dir, "-e", "stderr", "-c", file} })
	case NftDSR:
		return r.startPeer(peers.Options{Kind: peers.NftDSR})
	case NftDNAT:
		return r.startPeer(peers.Options{Kind: peers.NftDNAT, SNAT: snat})
	default:
		return r.startPeer(peers.Options{Kind: peers.IPVS})
	}
}

func (r *rig) startPeer(opt peers.Options) (*running, error) {
	opt.Interface, opt.VIP, opt.Backends = device, vip, r.backends
	p, err := peers.Start(r.balancer, opt)
	if err != nil {
		return nil, err
	}
	return &running{to: []netip.AddrPort{vip}, stop: p.Close}, nil
}

// startWeir starts weir with a file and its defaults, but for the worker's CPU.
func (r *rig) startWeir(ctx context.Context, opt *Options, mode string) (*running, error) {
	service := site.Service{
		Name: "web", Mode: mode, Addresses: []string{vip.Addr().String()}, Ports: []string{fmt.Sprintf("tcp/%d", vip.Port())},
	}
	for _, b := range r.backends {
		service.Add(b.Addr)
	}
	config := &site.Config{
		Node:       "lb1",
		Interfaces: []site.Interface{{Name: device, CPUs: []int{opt.CPUs[1]}}},
		Services:   []site.Service{service},
	}
	if mode == "nat" {
		config.NAT.Addresses = []string{snat.String()}
	}
	weir, err := site.NewWeir(r.balancer, opt.Weir, r.dir, config, nil)
	if err != nil {
		return nil, err
	}
	err = weir.Start(ctx)
	if err == nil {
		err = weir.WaitReady(ctx)
	}
	stop := func() error { return errors.Join(weir.Stop(), weir.Close()) }
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &running{pid: weir.Process().PID(), to: []netip.AddrPort{vip}, stop: stop}, nil
}

// Where Debian has the proxies.
const (
	haproxyProgram = "/usr/sbin/haproxy"
	nginxProgram   = "/usr/sbin/nginx"
	nginxModule    = "/usr/lib/nginx/modules/ngx_stream_module.so"
)

// haproxyText is a configuration with what HAProxy asks for, and no more: one
// thread because it has one CPU, and the timeouts that it warns without.
func (r *rig) haproxyText() string {
	var servers strings.Builder
	for i, b := range r.backends {
		fmt.Fprintf(&servers, "\tserver b%d %s:%d\n", i+1, b.Addr, vip.Port())
	}
	return fmt.Sprintf(`global
	nbthread 1
defaults
	mode tcp
	timeout connect 5s
	timeout client 10s
	timeout server 10s
listen web
	bind %s
	balance roundrobin
%s`, vip, &servers)
}

// nginxText is the same for nginx. Without a master it is one process, see
// lab/nginx.
func (r *rig) nginxText() string {
	var servers strings.Builder
	for _, b := range r.backends {
		fmt.Fprintf(&servers, "\t\tserver %s:%d;\n", b.Addr, vip.Port())
	}
	return fmt.Sprintf(`load_module %s;
daemon off;
master_process off;
user root;
pid %s/nginx.pid;
error_log stderr error;
events { worker_connections 1000; }
stream {
	upstream backends {
%s	}
	server {
		listen %s backlog=4096;
		proxy_connect_timeout 5s;
		proxy_pass backends;
	}
}
`, nginxModule, r.dir, &servers, vip)
}

const (
	readyWithin = 10 * time.Second // from the start of a proxy until it listens
	stopGrace   = 2 * time.Second  // from SIGTERM to SIGKILL
)

// startProxy starts a proxy on the balancer, which holds the VIP then.
func (r *rig) startProxy(ctx context.Context, program, text string, args func(file string) []string) (*running, error) {
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%s is not installed: run scripts/deps: %w", program, err)
	}
	file := filepath.Join(r.dir, filepath.Base(program)+".conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := r.balancer.AddAddr(device, netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen())); err != nil {
		return nil, err
	}
	p, err := r.balancer.Start(exec.Command(program, args(file)...))
	if err != nil {
		return nil, err
	}
	if err := listens(ctx, r.balancer, p); err != nil {
		return nil, fmt.Errorf("start %s: %w: %s", filepath.Base(program), err, strings.TrimSpace(p.Output()))
	}
	return &running{pid: p.PID(), to: []netip.AddrPort{vip}, stop: func() error {
		_ = p.Stop(stopGrace) // HAProxy says that it was ended
		return nil
	}}, nil
}

// listens waits until a process on the host takes connections to the VIP.
func listens(ctx context.Context, host *netlab.Host, p *netlab.Process) error {
	for deadline := time.Now().Add(readyWithin); ; {
		var c net.Conn
		c, err := host.DialContext(ctx, "tcp4", vip.String())
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.Done():
			return fmt.Errorf("it has ended: %w", errors.Join(p.Wait(), err))
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not listen: %w", err)
		}
		if err := measure.Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// programs returns which versions of the peers' programs are installed, of those
// that are.
func programs() map[string]string {
	versions := make(map[string]string)
	for name, command := range map[string][]string{
		"haproxy": {haproxyProgram, "-v"},
		"nginx":   {nginxProgram, "-v"},
		"nft":     {"/usr/sbin/nft", "--version"},
	} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(out), "\n")
		versions[name] = strings.TrimSpace(line)
	}
	return versions
}
