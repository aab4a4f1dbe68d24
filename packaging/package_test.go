package packaging

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

// Set by scripts/test-package: where packages of two versions are, and which those are,
// and the Debian that they are installed in.
const (
	packagesVariable = "WEIR_PACKAGES"
	oldVersion       = "0.0.1+old"
	newVersion       = "0.0.2+new"
	debian           = "debian.tar"
)

// tree is a Debian of its own, in a directory.
type tree struct{ root string }

// newTree unpacks a clean one, with systemd, but not booted, and with rpm.
func newTree(t *testing.T) *tree {
	t.Helper()
	labtest.NeedRoot(t)
	packages := os.Getenv(packagesVariable)
	if packages == "" {
		t.Skip("make test-package builds what is tested here")
	}
	root := t.TempDir()
	out, err := exec.Command("tar", "--numeric-owner", "-C", root, "-xpf", filepath.Join(packages, debian)).CombinedOutput()
	if err != nil {
		t.Fatalf("unpack a Debian: %v\n%s", err, out)
	}
	mount(t, root, root, "", unix.MS_BIND) // rpm wants / to be a mount
	mount(t, "proc", filepath.Join(root, "proc"), "proc", 0)
	tr := &tree{root: root}
	for _, version := range []string{oldVersion, newVersion} {
		for _, name := range []string{deb(version), rpm(version)} {
			text, err := os.ReadFile(filepath.Join(packages, name))
			if err != nil {
				t.Fatal(err)
			}
			tr.write(t, name, string(text))
		}
	}
	return tr
}

// mount mounts for as long as the test takes.
func mount(t *testing.T, what, where, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(what, where, kind, flags, ""); err != nil {
		t.Fatalf("mount %s: %v", where, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(where, 0); err != nil {
			t.Errorf("unmount %s: %v", where, err)
		}
	})
}

func deb(version string) string { return "weir_" + version + "_amd64.deb" }
func rpm(version string) string { return "weir-" + version + "-1.x86_64.rpm" }

// try runs a command in the tree.
func (tr *tree) try(name string, args ...string) (string, error) {
	out, err := exec.Command("chroot", append([]string{tr.root, name}, args...)...).CombinedOutput()
	return string(out), err
}

func (tr *tree) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tr.try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (tr *tree) write(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(tr.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(tr.root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (tr *tree) has(path string) bool {
	_, err := os.Lstat(filepath.Join(tr.root, path))
	return err == nil
}

// mode returns permissions and owner of a file, as ls would say them.
func (tr *tree) mode(t *testing.T, path string) string {
	t.Helper()
	return strings.TrimSpace(tr.run(t, "stat", "--format=%A %U:%G", path))
}

// The one after the other, as on a box in its life.
func TestDebian(t *testing.T) {
	tr := newTree(t)
	step := func(name string, f func(t *testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("install", func(t *testing.T) {
		tr.run(t, "dpkg", "--install", "/"+deb(oldVersion))
		tr.installed(t, oldVersion)
		if enabled, err := tr.try("systemctl", "is-enabled", "weir"); err == nil || !strings.Contains(enabled, "disabled") {
			t.Errorf("is-enabled says %q (%v): weir would start by itself", enabled, err)
		}
	})
	step("default-configuration", tr.defaultConfiguration)
	step("unit", tr.unit)
	step("manual", tr.manual)
	step("completion", func(t *testing.T) {
		tr.run(t, "bash", "-n", "/usr/share/bash-completion/completions/weir")
	})
	step("run", tr.runAsUnit)
	step("upgrade", func(t *testing.T) {
		tr.write(t, "/etc/weir/weir.yaml", "# mine\n")
		tr.write(t, "/var/lib/weir/allocations.json", "{}\n")
		tr.run(t, "dpkg", "--install", "/"+deb(newVersion))
		tr.installed(t, newVersion)
		tr.kept(t)
	})
	step("remove", func(t *testing.T) {
		tr.run(t, "dpkg", "--remove", "weir")
		tr.removed(t)
		tr.kept(t)
	})
	step("install-again", func(t *testing.T) {
		tr.run(t, "dpkg", "--install", "/"+deb(newVersion))
		tr.installed(t, newVersion)
		tr.kept(t)
	})
	step("purge", func(t *testing.T) {
		tr.run(t, "dpkg", "--purge", "weir")
		tr.removed(t)
		for _, path := range []string{"/etc/weir", "/var/lib/weir", "/run/weir", "/var/lib/dpkg/info/weir.list"} {
			if tr.has(path) {
				t.Errorf("%s is still there", path)
			}
		}
	})
}

// The same with the .rpm. What it depends on is Debian's here, and rpm does not know it.
func TestRPM(t *testing.T) {
	tr := newTree(t)
	tr.run(t, "rpm", "--install", "--nodeps", "/"+rpm(oldVersion))
	tr.installed(t, oldVersion)
	tr.write(t, "/etc/weir/weir.yaml", "# mine\n")
	tr.write(t, "/var/lib/weir/allocations.json", "{}\n")
	tr.run(t, "rpm", "--upgrade", "--nodeps", "/"+rpm(newVersion))
	tr.installed(t, newVersion)
	tr.kept(t)
	tr.run(t, "rpm", "--erase", "--nodeps", "weir")
	tr.removed(t)
	if text := tr.read(t, "/etc/weir/weir.yaml.rpmsave"); text != "# mine\n" {
		t.Errorf("the configuration was saved as %q", text)
	}
}

// installed checks that a version is there, and that only root and weir read its secrets.
func (tr *tree) installed(t *testing.T, version string) {
	t.Helper()
	if out := tr.run(t, "weir", "--version"); !strings.Contains(out, version) {
		t.Errorf("weir --version says %q, want %s", out, version)
	}
	for path, want := range map[string]string{
		"/usr/bin/weir":                        "-rwxr-xr-x root:root",
		"/etc/weir":                            "drwxr-x--- root:weir",
		"/etc/weir/weir.yaml":                  "-rw-r----- root:weir",
		"/usr/lib/systemd/system/weir.service": "-rw-r--r-- root:root",
	} {
		if got := tr.mode(t, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if out := tr.run(t, "getent", "passwd", "weir"); !strings.Contains(out, ":/var/lib/weir:") || !strings.Contains(out, "nologin") {
		t.Errorf("the user is %q", out)
	}
}

// kept checks that the operator's files are as they were.
func (tr *tree) kept(t *testing.T) {
	t.Helper()
	if text := tr.read(t, "/etc/weir/weir.yaml"); text != "# mine\n" {
		t.Errorf("the configuration is now %q", text)
	}
	if text := tr.read(t, "/var/lib/weir/allocations.json"); text != "{}\n" {
		t.Errorf("what addresses were given is now %q", text)
	}
}

func (tr *tree) removed(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"/usr/bin/weir", "/usr/lib/systemd/system/weir.service", "/usr/lib/sysusers.d/weir.conf", "/usr/lib/tmpfiles.d/weir.conf",
		"/usr/share/man/man8/weir.8.gz", "/usr/share/bash-completion/completions/weir",
	} {
		if tr.has(path) {
			t.Errorf("%s is still there", path)
		}
	}
}

// defaultConfiguration takes no traffic as it comes; without its comment signs it is
// one that weir takes.
func (tr *tree) defaultConfiguration(t *testing.T) {
	out, err := tr.try("weir", "check", "/etc/weir/weir.yaml")
	if err == nil || !strings.Contains(out, "is empty; weir needs at least interfaces and services") {
		t.Errorf("weir check says of the file as it comes: %v\n%s", err, out)
	}
	var text strings.Builder
	for line := range strings.Lines(tr.read(t, "/etc/weir/weir.yaml")) {
		rest := strings.TrimPrefix(line, "#")
		if prose := len(rest) > 1 && rest[0] == ' ' && rest[1] != ' '; !prose {
			text.WriteString(rest)
		}
	}
	tr.write(t, "/tmp/weir.yaml", strings.ReplaceAll(text.String(), "eth1", "lo"))
	out, _ = tr.try("weir", "check", "/tmp/weir.yaml")
	for line := range strings.Lines(out) { // lo is no Ethernet interface, which is all that is wrong with it
		if !strings.Contains(line, "interfaces[0]") && !strings.Contains(line, "warning") && !strings.Contains(line, "is valid") {
			t.Errorf("weir check says of the example: %s", out)
		}
	}
}

// unit checks that systemd takes the unit, and that it is confined.
func (tr *tree) unit(t *testing.T) {
	if out := tr.run(t, "systemd-analyze", "verify", "--man=no", "weir.service"); strings.Contains(out, "weir.service") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	// Exposure from 0 to 10; the threshold is ten times that.
	if out, err := tr.try("systemd-analyze", "security", "--offline=true", "--threshold=35", "--no-pager", "weir.service"); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	} else {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
	}
}

// manual checks that each page is found and read without complaint.
func (tr *tree) manual(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(tr.root, "/usr/share/man/man[58]/weir*"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		page = strings.TrimPrefix(page, tr.root)
		out, err := exec.Command("chroot", tr.root, "sh", "-c", "MANWIDTH=100 man --warnings=all --local-file "+page+" 2>&1 >/dev/null").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// setting returns the value of a line of the installed unit.
func (tr *tree) setting(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(tr.read(t, "/usr/lib/systemd/system/weir.service")) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("the unit has no %s", name)
	return ""
}

// runAsUnit starts the installed weir as the unit says: as its user, with its
// capabilities and none beside them.
func (tr *tree) runAsUnit(t *testing.T) {
	l, err := netlab.New("package")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	box, far := host(t, l, "box"), host(t, l, "far")
	mine := netlab.Iface{Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}
	theirs := netlab.Iface{Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}}
	if err := box.ConnectTo(far, mine, theirs); err != nil {
		t.Fatal(err)
	}
	tr.write(t, "/etc/weir/weir.yaml", `
interfaces: [{name: eth1, driver: afxdp}]
services: [{name: web, addresses: [192.0.2.10], ports: [tcp/80], mode: nat, backends: [{address: 192.0.2.11}]}]
nat: {shared: {addresses: [192.0.2.2], ports: 50000-59999}}
`)
	tr.run(t, "sh", "-c", "install -d -o weir -g weir -m 750 /run/weir /var/lib/weir")
	var caps []string
	for _, c := range strings.Fields(tr.setting(t, "AmbientCapabilities")) {
		caps = append(caps, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	list := strings.Join(append([]string{"-all"}, caps...), ",")
	exec := append([]string{
		tr.root, "setpriv", "--reuid", tr.setting(t, "User"), "--regid", tr.setting(t, "Group"), "--clear-groups",
		"--inh-caps", list, "--ambient-caps", list, "--bounding-set", list, "--no-new-privs",
	}, strings.Fields(tr.setting(t, "ExecStart"))...)
	p := start(t, box, exec)
	var shown string
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(shown, "afxdp"); time.Sleep(50 * time.Millisecond) {
		shown, _ = tr.try("weir", "show", "interfaces")
		select {
		case <-p.Done():
			t.Fatalf("weir ended: %s", p.Output())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("weir does not answer: %s", p.Output())
		}
	}
	if got := tr.mode(t, "/run/weir/weir.sock"); got != "srw-rw---- weir:weir" {
		t.Errorf("the api's socket is %s", got)
	}
	t.Log(shown)
	if err := p.Stop(10 * time.Second); err != nil {
		t.Errorf("%v: %s", err, p.Output())
	}
	if strings.Contains(p.Output(), "ermission") || strings.Contains(p.Output(), "not permitted") {
		t.Errorf("something is not permitted: %s", p.Output())
	}
}

func host(t *testing.T, l *netlab.Lab, name string) *netlab.Host {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func start(t *testing.T, h *netlab.Host, args []string) *netlab.Process {
	t.Helper()
	p, err := h.Start(exec.CommandContext(context.WithoutCancel(t.Context()), "chroot", args...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
