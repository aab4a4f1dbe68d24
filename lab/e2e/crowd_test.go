package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/netlab"
	"weir/lab/site"
	"weir/lab/traffic"
)

// Where this variable is set, the test binary is not to run tests but to be a
// program of a host. Each host with a process of its own, tens of thousands of
// connections are within the limits of open files that systems have.
const roleVariable = "WEIR_E2E_ROLE"

// What a client says when it has done a part.
const (
	allOpen   = "all are open"
	allEchoed = "all have echoed"
)

// play is a host's program; it returns the exit status.
func play(role string, args []string) int {
	var err error
	switch role {
	case "server":
		err = playServer(args[0], args[1])
	case "clients":
		err = playClients(args[0], args[1], args[2])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// playServer echoes streams for good.
func playServer(name, listen string) error {
	address, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	server, err := traffic.NewServer(context.Background(), traffic.ServerConfig{Name: name, Streams: []netip.AddrPort{address}})
	if err != nil {
		return err
	}
	return server.Run(context.Background())
}

// playClients opens streams, writes for each the backend and the address that
// this sees, and has all echo a byte when there is a line to read.
func playClients(from, to, number string) error {
	local, err := netip.ParseAddr(from)
	if err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	crowd, err := traffic.OpenCrowd(context.Background(), traffic.CrowdConfig{
		Clients: []*traffic.Client{{Dial: dialer.DialContext, Timeout: time.Minute}}, Target: target, Streams: n, AtOnce: 4,
	})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for _, s := range crowd.Streams() {
		fmt.Fprintln(out, s.Backend, s.Client)
	}
	fmt.Fprintln(out, allOpen)
	if err := out.Flush(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if err := crowd.Echo(context.Background(), []byte{'x'}); err != nil {
		return err
	}
	fmt.Println(allEchoed)
	return crowd.Close()
}

// startRole starts a program in a host. What is written to it, it reads.
func (s *testSite) startRole(h *netlab.Host, role string, args ...string) (*netlab.Process, func(line string)) {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	input, err := cmd.StdinPipe()
	s.must(err)
	p, err := h.Start(cmd)
	s.must(err)
	return p, func(line string) {
		s.t.Helper()
		_, err := fmt.Fprintln(input, line)
		s.must(err)
	}
}

// says waits until a program has written a line.
func (s *testSite) says(p *netlab.Process, line string) {
	s.t.Helper()
	for !strings.Contains(p.Output(), line+"\n") {
		select {
		case <-p.Done():
			if !strings.Contains(p.Output(), line+"\n") {
				s.t.Fatalf("%v:\n%s", p.Wait(), p.Output())
			}
		case <-s.ctx.Done():
			s.t.Fatalf("%q is not said: %v:\n%s", line, s.ctx.Err(), p.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestNATReusesPorts holds 20,000 connections open through one SNAT address that
// has 8192 ports: each is used once for every backend.
func TestNATReusesPorts(t *testing.T) {
	t.Parallel()
	const clients, connections, backends, ports, port = 4, 20_000, 4, 8192, 4007
	eachCombo(t, func(t *testing.T, c combo) {
		s := newSite(t, site.Options{Backends: backends, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT})
		for _, b := range s.Backends {
			s.startRole(b.Host, "server", b.Name, netip.AddrPortFrom(b.Addr4, port).String())
			s.await(b.Name+" listens", func() error {
				stream, err := s.Client.OpenStream(s.ctx, netip.AddrPortFrom(b.Addr4, port))
				if err == nil {
					err = stream.Close()
				}
				return err
			})
		}
		streamsBehind(s.Config, site.NAT4, site.NATConfig{
			Addresses: []string{oneSNAT}, Ports: fmt.Sprintf("%d-%d", 20480, 20480+ports-1),
		})
		s.Config.Services[0].SetPort(port)
		s.Config.Flows.Entries = 1 << 18
		s.start()

		var programs []*netlab.Process
		var tell []func(string)
		for i := range byte(clients) { // the kernel has ports for 28,000 connections from one address
			addr := netip.AddrFrom4([4]byte{10, 0, 0, 110 + i})
			s.must(s.ClientHost.AddAddr("eth0", netip.PrefixFrom(addr, 24)))
			p, write := s.startRole(s.ClientHost, "clients", addr.String(), s.NAT4.String(), fmt.Sprint(connections/clients))
			programs, tell = append(programs, p), append(tell, write)
		}
		answers, used, perBackend := make(map[string]bool), make(map[uint16]bool), make(map[string]int)
		for _, p := range programs {
			s.says(p, allOpen)
			for line := range strings.Lines(p.Output()) {
				var backend, client string
				if n, _ := fmt.Sscan(line, &backend, &client); n != 2 || strings.HasPrefix(line, allOpen) {
					continue
				}
				seen, err := netip.ParseAddrPort(client)
				if err != nil || seen.Addr().String() != oneSNAT {
					t.Fatalf("%s sees %s, want address %s", backend, client, oneSNAT)
				}
				answers[line], used[seen.Port()] = true, true
				perBackend[backend]++
			}
		}
		if len(answers) != connections || len(used) > ports {
			t.Errorf("%d connections have %d pairs of backend and port, with %d ports", connections, len(answers), len(used))
		}
		t.Logf("%d connections to %v through %d ports", connections, perBackend, len(used))
		if v := get[[]api.Service](s, "services")[0]; v.Flows < connections {
			t.Errorf("the api has %d flows of %d connections", v.Flows, connections)
		}
		for i, p := range programs {
			tell[i]("go on")
			s.says(p, allEchoed)
		}
		if n := s.drops()["ports_exhausted"]; n > 0 {
			t.Errorf("ports were exhausted %d times", n)
		}
	}, combo{xdpCopy, 4}, combo{afPacket, 1})
}
