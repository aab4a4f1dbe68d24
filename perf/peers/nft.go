package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// table is the name of the only table that is made.
const table = "weir_peer"

// translate has the kernel rewrite the destination of what is for the VIP, and
// the answers' source. What it knows of connections outlives the table: without
// being told to forget them it would do the same for old ones after Close.
func (p *Peer) translate() error {
	ip := p.ip()
	var text strings.Builder
	fmt.Fprintf(&text, "table %s %s {\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n", ip, table)
	for _, protocol := range []string{"udp", "tcp"} {
		fmt.Fprintf(&text, "\t\t%s dnat to %s\n", p.matches(protocol), p.chosen(protocol, func(b Backend) string { return b.Addr.String() }))
	}
	text.WriteString("\t}\n")
	if p.opt.SNAT.IsValid() {
		fmt.Fprintf(&text, "\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tct status dnat snat to %s\n\t}\n", p.opt.SNAT.Masked())
	}
	text.WriteString("}\n")
	p.onHostClose(func() error {
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			return fmt.Errorf("forget the host's connections (needs a kernel with CONFIG_NF_CT_NETLINK): %w", err)
		}
		return nil
	})
	return p.nft(ip, text.String())
}

// redirect gives what is for the VIP another MAC address where it comes in, and
// sends it on from there.
func (p *Peer) redirect() error {
	out, err := p.host.Link(p.opt.Out)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "table netdev %s {\n\tchain ingress {\n\t\ttype filter hook ingress device %q priority filter; policy accept;\n", table, p.opt.Interface)
	for _, protocol := range []string{"udp", "tcp"} {
		fmt.Fprintf(&text, "\t\t%s ether saddr set %s ether daddr set %s fwd to %q\n",
			p.matches(protocol), out.MAC, p.chosen(protocol, func(b Backend) string { return b.MAC.String() }), p.opt.Out)
	}
	text.WriteString("\t}\n}\n")
	return p.nft("netdev", text.String())
}

// ip returns what nftables calls the VIP's IP version.
func (p *Peer) ip() string {
	if p.opt.VIP.Addr().Is6() {
		return "ip6"
	}
	return "ip"
}

// matches is the part of a rule that says what it is for.
func (p *Peer) matches(protocol string) string {
	return fmt.Sprintf("%s daddr %s %s dport %d", p.ip(), p.opt.VIP.Addr(), protocol, p.opt.VIP.Port())
}

// chosen is the part of a rule that chooses a backend, and says what of it.
func (p *Peer) chosen(protocol string, of func(Backend) string) string {
	var elements []string
	for i, b := range p.opt.Backends {
		elements = append(elements, fmt.Sprintf("%d : %s", i, of(b)))
	}
	return fmt.Sprintf("jhash %s saddr . %s sport mod %d map { %s }", p.ip(), protocol, len(elements), strings.Join(elements, ", "))
}

// nft puts a table of that family in force.
func (p *Peer) nft(family, text string) error {
	nft, err := program("nft", "nftables")
	if err != nil {
		return err
	}
	run := func(text string) error {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		process, err := p.host.Start(cmd)
		if err != nil {
			return err
		}
		if err := process.Wait(); err != nil {
			return fmt.Errorf("nft: %w: %s\n%s", err, process.Output(), text)
		}
		return nil
	}
	if err := run(text); err != nil {
		return err
	}
	p.onClose(func() error { return run(fmt.Sprintf("delete table %s %s\n", family, table)) })
	return nil
}

// program returns where a program of a Debian package is. Not everybody has
// /usr/sbin on the PATH.
func program(name, debian string) (string, error) {
	for _, n := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(n); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: run scripts/deps, or install Debian's package %s", name, debian)
}

// The machine's table of connections (Documentation/networking/nf_conntrack-sysctl.rst):
// the limit of entries in each network namespace, and the size of the hash table
// that they share. Only the first namespace may set them.
const (
	conntrackDir     = "/proc/sys/net/netfilter"
	conntrackMax     = "nf_conntrack_max"
	conntrackBuckets = "nf_conntrack_buckets"
	conntrackCount   = "net/netfilter/nf_conntrack_count" // of the network namespace
)

// trackedConnections returns how many connections are tracked in this network namespace.
func trackedConnections() (int, error) {
	text, err := read(conntrackCount)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func (p *Peer) sizeConntrack() error {
	if p.opt.Conntrack == 0 {
		return nil
	}
	return p.sizeTable(conntrackDir)
}

// sizeTable makes room in the table of connections, with as many buckets as
// entries, as the kernel itself has it.
func (p *Peer) sizeTable(dir string) error {
	for _, name := range []string{conntrackBuckets, conntrackMax} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read size of conntrack table: %w", err)
		}
		old := strings.TrimSpace(string(b))
		if n, err := strconv.Atoi(old); err == nil && n >= p.opt.Conntrack {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(p.opt.Conntrack)), 0); err != nil {
			return fmt.Errorf("make conntrack table larger (only possible outside of any network namespace): %w", err)
		}
		p.onClose(func() error { return os.WriteFile(path, []byte(old), 0) })
	}
	return nil
}
