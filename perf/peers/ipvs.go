package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// ipvsFamily is what IPVS is set up through (include/uapi/linux/ip_vs.h).
const ipvsFamily = "IPVS"

// IPVSVersion returns what the kernel says of its IPVS, such as "IP Virtual Server
// version 1.2.1 (size=4096)": the size is that of the hash table of connections, which
// in Linux 6.12 is said by the parameter conn_tab_bits of the module ip_vs when that is
// loaded, and by nobody afterwards. It has the kernel load the module; if there is none,
// the error is an ErrNotSupported.
func IPVSVersion() (string, error) {
	_, err := netlink.GenlFamilyGet(ipvsFamily)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%w: the kernel has no ip_vs: needs CONFIG_IP_VS, with CONFIG_IP_VS_RR, CONFIG_IP_VS_PROTO_TCP, CONFIG_IP_VS_PROTO_UDP and for IPv6 CONFIG_IP_VS_IPV6", ErrNotSupported)
	}
	if err != nil {
		return "", fmt.Errorf("ask for ip_vs: %w", err)
	}
	text, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil {
		return "", fmt.Errorf("ask for the version of ip_vs: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line, nil
}

// ipvsConnections returns how many connections IPVS has had in this network namespace.
func ipvsConnections() (int, error) {
	text, err := os.ReadFile("/proc/thread-self/net/ip_vs_stats_percpu")
	if err != nil {
		return 0, err
	}
	return parseIPVSConnections(string(text))
}

// parseIPVSConnections adds up what CPUs have counted, in hexadecimal: a line for each
// below two of headings. The line of totals, after them, is two seconds old
// (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_stats_percpu_show).
func parseIPVSConnections(text string) (total int, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 || !strings.HasPrefix(strings.TrimSpace(lines[1]), "CPU    Conns") {
		return 0, fmt.Errorf("not the statistics of ip_vs: %q", text)
	}
	for _, line := range lines[2:] {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] == "~" {
			break
		}
		n, err := strconv.ParseInt(fields[1], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("statistics of ip_vs: %w", err)
		}
		total += int(n)
	}
	return total, nil
}

// haveIPVS fails if the kernel has no IPVS.
func (p *Peer) haveIPVS() error {
	return p.host.Do(func() error {
		_, err := IPVSVersion()
		return err
	})
}

// direct adds the services.
func (p *Peer) direct() error {
	ipvsadm, err := program("ipvsadm", "ipvsadm")
	if err != nil {
		return err
	}
	run := func(rules string) error {
		cmd := exec.Command(ipvsadm, "--restore")
		cmd.Stdin = strings.NewReader(rules)
		process, err := p.host.Start(cmd)
		if err != nil {
			return err
		}
		// It goes on after a line that fails, and says so.
		if err := errors.Join(process.Wait(), said(process.Output())); err != nil {
			return fmt.Errorf("ipvsadm: %w\n%s", err, rules)
		}
		return nil
	}
	add, remove := p.ipvsRules()
	p.onClose(func() error { return run(remove) })
	return run(add)
}

func said(output string) error {
	if output = strings.TrimSpace(output); output != "" {
		return errors.New(output)
	}
	return nil
}

// ipvsRules returns what ipvsadm(8) is told to do and to undo.
func (p *Peer) ipvsRules() (add, remove string) {
	vip := p.opt.VIP
	for _, service := range []string{"-t " + vip.String(), "-u " + vip.String()} {
		add += fmt.Sprintf("-A %s -s rr\n", service)
		for _, b := range p.opt.Backends {
			to := b.Addr.String()
			if b.Addr.Is6() {
				to = "[" + to + "]"
			}
			add += fmt.Sprintf("-a %s -r %s:%d -g\n", service, to, vip.Port())
		}
		remove += fmt.Sprintf("-D %s\n", service)
	}
	return add, remove
}
