package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/traffic"
)

// password is that of root at the console, and its hash is in the seed.
const password = "a lab has no secrets"

// weirConfig has three services, or two, with addresses from a pool.
func weirConfig(pool string, late bool) string {
	text := `
interfaces: [{name: eth0}, {name: eth1}]
flows: {entries: 65536}
pools: [{name: public, addresses: [` + pool + `]}]
services:
  - name: near
    pool: public
    ports: [tcp/80]
    mode: dsr
    health: {http: {path: /healthz}, interval: 5s, timeout: 5s, rise: 1, fall: 5}
    backends: [{address: 10.1.0.21}]
  - name: far
    pool: public
    ports: [tcp/80]
    mode: ipip
    health: {http: {path: /healthz}, interval: 5s, timeout: 5s, rise: 1, fall: 5}
    backends: [{address: 10.2.0.22}]
`
	if late {
		text += `
  - name: late
    pool: public
    ports: [tcp/80]
    mode: dsr
    backends: [{address: 10.1.0.21}]
`
	}
	return text
}

const (
	smallPool = "10.1.0.128/29"
	largePool = "10.1.0.128/26"
)

// A seed as it would be written by hand. Kernel and seed do not agree which NIC is which:
// the first that the kernel finds is eth1.
func (s *lab) weirSeed(t *testing.T) map[string]string {
	t.Helper()
	hash, err := exec.Command("openssl", "passwd", "-6", password).Output()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"meta-data": "instance-id: one\nlocal-hostname: lb1\n",
		"user-data": "#cloud-config\nssh_authorized_keys: [" + s.publicKey(t) + "]\n" +
			"users: [{name: root, hashed_passwd: " + strings.TrimSpace(string(hash)) + "}]\n" +
			"timezone: Europe/Berlin\n",
		"network-config": `
version: 2
ethernets:
  front: {match: {macaddress: "52:54:00:00:01:02"}, set-name: eth0, addresses: [10.1.0.2/24]}
  back: {match: {macaddress: "52:54:00:00:02:02"}, set-name: eth1, addresses: [10.2.0.2/24]}
`,
		"weir.yaml": weirConfig(smallPool, false),
	}
}

// A seed as Proxmox writes it, with network-config of version 1.
func (s *lab) backendSeed(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"meta-data": "instance-id: 0123456789abcdef\n",
		"user-data": "#cloud-config\nhostname: backend\nmanage_etc_hosts: true\nfqdn: backend.example.com\nuser: root\n" +
			"ssh_authorized_keys:\n  - " + s.publicKey(t) + "\nchpasswd:\n  expire: False\nusers:\n  - default\npackage_upgrade: true\n",
		"network-config": `
version: 1
config:
    - type: physical
      name: eth0
      mac_address: '52:54:00:00:02:16'
      subnets:
      - type: static
        address: '10.2.0.22'
        netmask: '255.255.255.0'
        gateway: '10.2.0.1'
    - type: nameserver
      address:
      - '10.2.0.1'
      search:
      - 'example.com'
`,
	}
}

func (s *lab) publicKey(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// appliance is the machine under test, with what the steps know of it.
type appliance struct {
	*machine
	lab        *lab
	interfaces int            // that weir works
	near, far  netip.AddrPort // VIPs
}

// The one after the other, as on a box in its life.
func TestAppliance(t *testing.T) {
	needImage(t)
	s := newLab(t)
	backend := s.machine(t, &machine{
		name: "backend", from: s.router, address: backendAddr, memory: 512,
		nics: []nic{{"52:54:00:00:02:16", "back"}},
	}, image(t, ".qcow2"))
	backend.seed(t, s.backendSeed(t), true)
	a := &appliance{lab: s, interfaces: 2, machine: s.machine(t, &machine{
		name: "lb1", from: s.client, address: weirAddr, memory: 1024, watchdog: "i6300esb",
		nics: []nic{{"52:54:00:00:02:02", "back"}, {"52:54:00:00:01:02", "front"}},
	}, image(t, ".qcow2"))}
	a.seed(t, s.weirSeed(t), false)
	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("boot", a.boots)
	step("addresses", a.addresses)
	backend.power(t)
	step("console", a.prompt)
	step("read-only", a.readOnly)
	step("listening", a.listens)
	s.serveVIP(t, a.near.Addr()) // for all that follow
	step("dsr", func(t *testing.T) { a.serves(t, a.near, "web") })
	step("ipip", func(t *testing.T) {
		backend.login(t)
		backend.waits(t)
		backend.has(t, map[string]string{ // the kernel's own, as the machine has none
			"/sys/class/watchdog/watchdog0/identity": "Software Watchdog",
			"/sys/class/watchdog/watchdog0/state":    "active",
		})
		startBackend(t, backend, a.far)
		a.serves(t, a.far, "backend")
	})
	step("reload", a.reloads)
	step("mistakes", a.refuses)
	step("power-cut", a.survives)
	step("update", a.updates)
	step("update-without-init", a.fallsBackFromPanic)
	step("update-without-weir", a.fallsBackFromWeir)
	step("watchdog", func(t *testing.T) { a.hangs(t, backend) })
}

// boots switches the box on and waits for weir.
func (a *appliance) boots(t *testing.T) {
	begin := time.Now()
	a.power(t)
	a.shows(t, 0, "lb1 login:")
	t.Logf("login prompt at the serial console %.0f s after power on", time.Since(begin).Seconds())
	a.login(t)
	a.ready(t)
	t.Logf("weir answers %.0f s after power on", time.Since(begin).Seconds())
	a.await(t, "booting has ended", func() error {
		_, err := a.try(nil, "systemctl is-system-running | grep -q -e running -e degraded")
		return err
	})
	t.Log(a.run(t, "systemd-analyze; systemd-analyze blame | head -8; journalctl -b -u weir -o cat | grep 'interface taken'; weir show interfaces"))
	if failed := a.run(t, "systemctl list-units --failed --plain --no-legend"); failed != "" {
		t.Errorf("units failed:\n%s", failed)
	}
	if ignored := "user-data: timezone: the appliance has no such setting"; !strings.Contains(a.console(), ignored) {
		t.Errorf("the console does not say %q", ignored)
	}
	a.has(t, map[string]string{
		"/sys/class/net/eth0/address":                  "52:54:00:00:01:02",
		"/sys/class/net/eth1/address":                  "52:54:00:00:02:02",
		"/sys/class/watchdog/watchdog0/identity":       "i6300ESB timer",
		"/sys/class/watchdog/watchdog0/state":          "active",
		"/proc/sys/kernel/unprivileged_bpf_disabled":   "1",
		"/proc/sys/net/ipv6/conf/default/accept_ra":    "0",
		"/proc/sys/net/ipv4/conf/all/accept_redirects": "0",
	})
}

// waits checks that in a box which has not been told anything, weir waits for that, and
// systemd does not try in vain.
func (m *machine) waits(t *testing.T) {
	m.await(t, "booting has ended", func() error {
		out, err := m.try(nil, "systemctl is-system-running --wait")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if got := m.run(t, "systemctl show -p ActiveState -p Result -p NRestarts weir"); got != "Result=exec-condition\nNRestarts=0\nActiveState=inactive\n" {
		t.Errorf("weir's unit: %s", got)
	}
	if status := m.run(t, "weir-appliance status"); !strings.HasPrefix(status, "slot a: ") || !strings.HasSuffix(status, " (running, boots)\nslot b: empty\n") {
		t.Errorf("slots: %s", status)
	}
}

// ready waits until weir works its interfaces.
func (a *appliance) ready(t *testing.T) {
	t.Helper()
	a.await(t, "weir is ready", func() error {
		var interfaces []api.Interface
		if err := a.show("interfaces", &interfaces); err != nil {
			return err
		}
		for _, i := range interfaces {
			if !i.Up || i.Workers != 2 || i.Driver != "afxdp" {
				return fmt.Errorf("%+v", i)
			}
		}
		if len(interfaces) != a.interfaces {
			return fmt.Errorf("%d interfaces", len(interfaces))
		}
		return nil
	})
}

// show asks weir in the machine.
func (a *appliance) show(noun string, into any) error {
	out, err := a.try(nil, "weir show "+noun+" -o json")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return json.Unmarshal([]byte(out), into)
}

// vip returns the address that a service has.
func (a *appliance) vip(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	var services []api.Service
	if err := a.show("services", &services); err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if s.Name == name && len(s.Addresses) == 1 {
			return netip.AddrPortFrom(s.Addresses[0], 80)
		}
	}
	t.Fatalf("no service %s with one address: %+v", name, services)
	return netip.AddrPort{}
}

func (a *appliance) addresses(t *testing.T) {
	a.near, a.far = a.vip(t, "near"), a.vip(t, "far")
	for _, vip := range []netip.AddrPort{a.near, a.far} {
		if !netip.MustParsePrefix(smallPool).Contains(vip.Addr()) {
			t.Errorf("%s is not of the pool", vip)
		}
	}
}

// readOnly checks that what is not state cannot be written, and where state is.
func (a *appliance) readOnly(t *testing.T) {
	for _, path := range []string{"/usr/x", "/boot/x", "/root/x"} {
		if out, err := a.try(nil, "touch "+path); err == nil || !strings.Contains(out, "Read-only file system") {
			t.Errorf("touch %s: %v %s", path, err, out)
		}
	}
	for path, want := range map[string]string{
		"/": "squashfs", "/etc": "overlay", "/etc/weir": "ext4", "/var/lib/weir": "ext4", "/var/log/journal": "ext4", "/tmp": "tmpfs",
	} {
		if got := strings.TrimSpace(a.run(t, "findmnt -n -o FSTYPE -T "+path)); got != want {
			t.Errorf("%s is in %s, want %s", path, got, want)
		}
	}
	cmd := exec.Command("ssh", "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile="+a.file("known_hosts"), "-v", "root@"+a.address.String(), "true")
	p, err := a.from.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(p.Output(), "Permission denied (publickey)") {
		t.Errorf("ssh without a key: %v\n%s", err, p.Output())
	}
}

// listens checks that from outside there is nothing to talk to but SSH.
func (a *appliance) listens(t *testing.T) {
	var outside []string
	for line := range strings.Lines(a.run(t, "ss -H -l -n -t -u")) {
		fields := strings.Fields(line) // protocol, state, two queues, local address
		host, port, err := net.SplitHostPort(strings.Replace(fields[4], "%lo", "", 1))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
			outside = append(outside, fields[0]+" "+port)
		}
	}
	slices.Sort(outside)
	if outside = slices.Compact(outside); !slices.Equal(outside, []string{"tcp 22"}) {
		t.Errorf("from outside one reaches %q", outside)
	}
}

// serves makes real requests by a VIP: small, large in both directions, and who came.
func (a *appliance) serves(t *testing.T, vip netip.AddrPort, backend string) {
	t.Helper()
	a.await(t, "answers from "+vip.String(), func() error { return a.lab.http.Healthy(t.Context(), vip) })
	who, err := a.lab.http.WhoAmI(t.Context(), vip)
	if err != nil || who.Backend != backend || who.Client.Addr() != clientAddr || who.VIP != vip {
		t.Errorf("%+v, %v; want %s, asked by %s at %s", who, err, backend, clientAddr, vip)
	}
	for _, r := range []traffic.Result{
		a.lab.http.Fetch(t.Context(), vip, 256<<10),
		a.lab.http.Upload(t.Context(), vip, 256<<10),
	} {
		if r.Err != nil || r.Backend != backend {
			t.Error(r)
		}
	}
}

// startBackend has a machine take packets for the VIP out of the kernel's own tunnel, and
// serve them.
func startBackend(t *testing.T, m *machine, vip netip.AddrPort) {
	t.Helper()
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if out, err := m.try(program, "cat >/tmp/serve && chmod 755 /tmp/serve"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(m.run(t, fmt.Sprintf(`set -e
		modprobe ipip
		sysctl -q net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
		sysctl -q net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
		ip link set tunl0 up
		ip addr add %s/32 dev lo
		systemd-run -q --unit=serve -E %s=backend,%s /tmp/serve
		uname -r; ip -d link show tunl0`, vip.Addr(), serveVariable, vip)))
}

// reloads adds a service and makes the pool larger, while connections go on.
func (a *appliance) reloads(t *testing.T) {
	a.serves(t, a.near, "web")
	load := traffic.NewLoad(traffic.LoadConfig{Client: a.lab.http, Target: a.near, Connections: 5, Stall: patience})
	ended := make(chan error, 1)
	go func() { ended <- load.Run(context.WithoutCancel(t.Context())) }()
	<-load.Started()
	a.write(t, "/etc/weir/weir.yaml", weirConfig(largePool, true))
	a.run(t, "systemctl reload weir")
	late := a.vip(t, "late")
	if err := a.lab.web.ServeVIP(late.Addr()); err != nil {
		t.Fatal(err)
	}
	load.Finish()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if near, far := a.vip(t, "near"), a.vip(t, "far"); near != a.near || far != a.far {
		t.Errorf("near is now at %s, far at %s", near, far)
	}
}

// refuses reloads a file with two mistakes: the old one stays in force, and both are
// named at the console and in the journal.
func (a *appliance) refuses(t *testing.T) {
	good := weirConfig(largePool, true)
	bad := strings.NewReplacer("mode: dsr", "mode: teleport", "10.2.0.22", "10.2.0.222222").Replace(good)
	a.write(t, "/etc/weir/weir.yaml", bad)
	mark := len(a.console())
	if out, err := a.try(nil, "systemctl reload weir"); err == nil {
		t.Errorf("reload did not fail: %s", out)
	}
	journal := a.run(t, "journalctl -b -u weir -o cat")
	for _, mistake := range []string{"teleport", "10.2.0.222222"} {
		a.shows(t, mark, mistake)
		if !strings.Contains(journal, mistake) {
			t.Errorf("the journal does not name %s:\n%s", mistake, tail(journal, 2000))
		}
	}
	a.serves(t, a.near, "web")
	a.serves(t, a.far, "backend")
	a.write(t, "/etc/weir/weir.yaml", good)
	a.run(t, "systemctl reload weir")
}

// survives cuts the power right after a change: all addresses are as they were, by the
// file on the state partition, and not by chance. Nobody has to answer what is on the
// serial line when it comes back.
func (a *appliance) survives(t *testing.T) {
	late := a.vip(t, "late")
	before := a.run(t, "cat /var/lib/weir/allocations.json")
	id := a.run(t, "cat /etc/machine-id")
	a.cut(t)
	mark := len(a.console())
	begin := time.Now()
	a.power(t)
	a.noise(t)
	a.shows(t, mark, "lb1 login:")
	a.login(t)
	a.ready(t)
	t.Logf("weir is back %.0f s after power on", time.Since(begin).Seconds())
	for name, want := range map[string]netip.AddrPort{"near": a.near, "far": a.far, "late": late} {
		if got := a.vip(t, name); got != want {
			t.Errorf("%s is now at %s, was at %s", name, got, want)
		}
	}
	if after := a.run(t, "cat /var/lib/weir/allocations.json"); after != before {
		t.Errorf("allocations were\n%s\nand are\n%s", before, after)
	}
	if now := a.run(t, "cat /etc/machine-id"); now != id {
		t.Errorf("machine-id was %s, is %s", id, now)
	}
	a.serves(t, a.near, "web")
	a.serves(t, a.far, "backend")
	if boots := strings.TrimSpace(a.run(t, "journalctl --list-boots | grep -c '^ *-*[0-9]'")); boots != "2" {
		t.Errorf("the journal has %s boots, want 2", boots)
	}
}

// hangs stops systemd in both machines, as a mistake in it would: when it crashes it
// freezes (systemd(1)). Nothing is left then but their watchdogs, of hardware and of the
// kernel.
func (a *appliance) hangs(t *testing.T, backend *machine) {
	machines := []*machine{a.machine, backend}
	var marks []int
	for _, m := range machines {
		marks = append(marks, len(m.console()))
		_, _ = m.try(nil, "kill -SEGV 1") // the connection may break first
	}
	for i, m := range machines {
		m.shows(t, marks[i], m.name+" login:")
		m.login(t)
	}
	// WDIOF_CARDRESET (include/uapi/linux/watchdog.h): that was why it booted. softdog
	// has nowhere to keep it.
	a.has(t, map[string]string{"/sys/class/watchdog/watchdog0/bootstatus": "32"})
}
