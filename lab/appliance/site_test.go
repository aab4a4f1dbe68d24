package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/lab/appliance/slot"
	"weir/lab/labtest"
	"weir/lab/netlab"
	"weir/lab/traffic"
)

// Set by scripts/test-appliance: the folder that the image is in.
const imageVariable = "WEIR_APPLIANCE"

// serveVariable makes the test binary a backend instead: NAME,ADDRESS:PORT...
const serveVariable = "WEIR_APPLIANCE_SERVE"

// The network, with the appliance between two links:
//
//	client .10 ─┐                       ┌─ backend .22, the same image with the
//	  web .21 ──┼─ front ─ lb1 ─ back ──┤  kernel's ipip, and a VM as well
//	router .1 ──┘ 10.1.0     10.2.0     └─ router .1
//
// All virtual machines are in one host, the hypervisor, with a bridge for each link.
type lab struct {
	client, web, router, hypervisor *netlab.Host
	http                            *traffic.Client
	dir                             string
	key                             string
	updates                         string // folder that the client serves at updatesURL
}

var (
	clientAddr  = netip.MustParseAddr("10.1.0.10")
	weirAddr    = netip.MustParseAddr("10.1.0.2")
	backendAddr = netip.MustParseAddr("10.2.0.22")
)

const updatesURL = "http://10.1.0.10:8080/"

func TestMain(m *testing.M) {
	if what := os.Getenv(serveVariable); what != "" {
		if err := serve(strings.Split(what, ",")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is a backend, run in a machine by this very binary.
func serve(args []string) error {
	config := traffic.ServerConfig{Name: args[0]}
	for _, address := range args[1:] {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		config.TCP = append(config.TCP, a)
	}
	s, err := traffic.NewServer(context.Background(), config)
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if _, err := netlab.Sweep(); err != nil {
		t.Fatal(err)
	}
	l, err := netlab.New("appliance")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &lab{dir: t.TempDir(), updates: t.TempDir()}
	s.key = filepath.Join(s.dir, "key")
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.key)
	for name, h := range map[string]**netlab.Host{"client": &s.client, "web": &s.web, "router": &s.router, "hypervisor": &s.hypervisor} {
		if *h, err = l.Host(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, bridge := range []string{"front", "back"} {
		s.ip(t, "link add %s type bridge", bridge)
		s.ip(t, "link set %s up", bridge)
	}
	for _, c := range []struct {
		host             *netlab.Host
		name, addr, link string
	}{
		{s.client, "eth0", "10.1.0.10/24", "front"},
		{s.web, "eth0", "10.1.0.21/24", "front"},
		{s.router, "eth0", "10.1.0.1/24", "front"},
		{s.router, "eth1", "10.2.0.1/24", "back"},
	} {
		port := c.host.Name() + c.name[3:]
		mine := netlab.Iface{Name: c.name, Addrs: []netip.Prefix{netip.MustParsePrefix(c.addr)}}
		if err := c.host.ConnectTo(s.hypervisor, mine, netlab.Iface{Name: port}); err != nil {
			t.Fatal(err)
		}
		s.ip(t, "link set %s master %s", port, c.link)
	}
	if err := s.router.Forward(); err != nil {
		t.Fatal(err)
	}
	s.http = &traffic.Client{Dial: s.client.DialContext, Timeout: 20 * time.Second}
	s.serveUpdates(t)
	return s
}

func (s *lab) ip(t *testing.T, format string, args ...any) {
	t.Helper()
	if out, err := s.hypervisor.Run(t.Context(), "ip", strings.Fields(fmt.Sprintf(format, args...))...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func (s *lab) serveUpdates(t *testing.T) {
	t.Helper()
	listener, err := s.client.Listen(t.Context(), "tcp", strings.TrimSuffix(strings.TrimPrefix(updatesURL, "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(s.updates)), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // until Close
	t.Cleanup(func() { server.Close() })
}

// serveVIP has the web host serve a VIP of mode dsr until the test ends.
func (s *lab) serveVIP(t *testing.T, vip netip.Addr) {
	t.Helper()
	if err := s.web.ServeVIP(vip); err != nil {
		t.Fatal(err)
	}
	server, err := traffic.NewServer(t.Context(), traffic.ServerConfig{
		Name: "web", TCP: []netip.AddrPort{netip.AddrPortFrom(vip, 80)}, Listen: s.web.Listen,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// machine makes one with a fresh disk, which begins as an image of the appliance.
func (s *lab) machine(t *testing.T, m *machine, image string) *machine {
	t.Helper()
	m.dir, m.hypervisor, m.key = filepath.Join(s.dir, m.name), s.hypervisor, s.key
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", strings.TrimPrefix(filepath.Ext(image), "."), "-b", image, m.file("disk.qcow2"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s:\n%s", m.name, tail(m.console(), 6000))
		}
	})
	m.plug(t)
	return m
}

// seed gives the machine a seed disk.
func (m *machine) seed(t *testing.T, files map[string]string, iso bool) {
	t.Helper()
	var names []string
	for name, text := range files {
		if err := os.WriteFile(m.file(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, m.file(name))
	}
	seed := m.file("seed.img")
	if iso {
		command(t, "genisoimage", append([]string{"-quiet", "-V", "cidata", "-J", "-R", "-o", seed}, names...)...)
		m.args = append(m.args, "-drive", "file="+seed+",if=ide,media=cdrom,format=raw,readonly=on")
	} else {
		if err := os.WriteFile(seed, make([]byte, 2<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		command(t, "mkfs.vfat", "-n", "CIDATA", seed)
		command(t, "mcopy", append(append([]string{"-i", seed}, names...), "::")...)
		m.args = append(m.args, "-drive", "file="+seed+",if=virtio,format=raw,readonly=on")
	}
}

// seeded copies the raw image, and has its kernel be given a seed by the very commands
// that docs/appliance.md has for it.
func (s *lab) seeded(t *testing.T, files map[string]string) (path string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/appliance.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("```\nword()"))
	commands, _, ok := bytes.Cut(text, []byte("```"))
	if !ok {
		t.Fatal("docs/appliance.md does not say how to have a seed on the command line")
	}
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(dir, "weir-appliance_VERSION_amd64.raw")
	command(t, "cp", "--sparse=always", image(t, ".raw"), path)
	command(t, "bash", "-euc", "cd "+dir+"\nword()"+string(commands))
	return path
}

// image returns the absolute path of the built file with an extension.
func image(t *testing.T, extension string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv(imageVariable), "weir-appliance_*"+extension))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d files %s in %s: %v", len(found), extension, os.Getenv(imageVariable), err)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func needImage(t *testing.T) {
	t.Helper()
	labtest.NeedRoot(t)
	if os.Getenv(imageVariable) == "" {
		t.Skip("make test-appliance builds what is tested here")
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// release is an update that the client serves, and its checksum.
type release struct{ url, sum string }

func (r release) args() string { return "--sha256 " + r.sum + " " + r.url }

// served is a file in s.updates.
func served(t *testing.T, path string) release {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return release{updatesURL + filepath.Base(path), fmt.Sprintf("%x", sha256.Sum256(text))}
}

// sealed makes the image's update one of another version.
func (s *lab) sealed(t *testing.T, version string) release {
	t.Helper()
	old := image(t, ".update")
	seal, err := slot.Read(old)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.updates, version+".update")
	command(t, "cp", old, path)
	if err := os.Truncate(path, seal.Size); err != nil {
		t.Fatal(err)
	}
	if err := slot.SealFile(path, version, seal.Arch); err != nil {
		t.Fatal(err)
	}
	return served(t, path)
}

// headless makes an update that loads and has nothing behind the kernel: no init.
func (s *lab) headless(t *testing.T, version string) release {
	t.Helper()
	old := image(t, ".update")
	root, path := filepath.Join(s.dir, "headless"), filepath.Join(s.updates, version+".update")
	command(t, "unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-d", root, old, "boot")
	for _, dir := range []string{"etc", "var", "usr/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "mksquashfs", root, path, "-comp", "gzip", "-noappend", "-quiet", "-no-progress", "-noD")
	if err := slot.SealFile(path, version, "amd64"); err != nil {
		t.Fatal(err)
	}
	return served(t, path)
}
