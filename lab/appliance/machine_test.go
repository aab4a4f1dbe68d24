package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"weir/lab/netlab"
)

// patience bounds every waiting for a machine. Emulated, and beside other work, it may
// take minutes for what hardware does in a second.
const patience = 10 * time.Minute

// nic is a virtio NIC of two queue pairs, on a tap device that is a port of a bridge.
type nic struct{ mac, bridge string }

// machine is a virtual machine, emulated by QEMU in a host of the lab.
type machine struct {
	name       string
	dir        string // for its disk, sockets and console
	hypervisor *netlab.Host
	from       *netlab.Host // who logs in by SSH
	address    netip.Addr   // where
	key        string       // file of the SSH key
	nics       []nic
	watchdog   string   // QEMU's device; "": the machine has none
	memory     int      // MiB
	kind       string   // of QEMU's machines; "": pc, which boots by BIOS
	args       []string // of QEMU, beside those that all have

	process *netlab.Process
}

func (m *machine) file(name string) string { return filepath.Join(m.dir, name) }

// power switches it on. Its disk stays as it is from one time to the next.
func (m *machine) power(t *testing.T) {
	t.Helper()
	kind := m.kind
	if kind == "" {
		kind = "pc"
	}
	args := []string{
		"-name", m.name, "-machine", kind, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(m.memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci",
		"-watchdog-action", "reset",
		"-chardev", "socket,id=console,path=" + m.file("console.sock") + ",server=on,wait=off,logfile=" + m.file("console.log") + ",logappend=on",
		"-serial", "chardev:console",
		"-chardev", "socket,id=monitor,path=" + m.file("monitor.sock") + ",server=on,wait=off", "-mon", "chardev=monitor,mode=readline",
		"-drive", "file=" + m.file("disk.qcow2") + ",if=virtio,format=qcow2",
	}
	if m.watchdog != "" {
		args = append(args, "-device", m.watchdog)
	}
	for i, n := range m.nics {
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=net%d,ifname=%s,script=no,downscript=no,queues=2,vhost=off", i, m.tap(i)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=%s,mq=on,vectors=6", i, n.mac))
	}
	p, err := m.hypervisor.Start(exec.Command("qemu-system-x86_64", append(args, m.args...)...))
	if err != nil {
		t.Fatal(err)
	}
	m.process = p
}

func (m *machine) tap(i int) string { return fmt.Sprintf("%s%d", m.name, i) }

// plug makes the machine's tap devices, two queues each, ports of their bridges.
func (m *machine) plug(t *testing.T) {
	t.Helper()
	for i, n := range m.nics {
		for _, command := range []string{
			fmt.Sprintf("tuntap add dev %s mode tap multi_queue vnet_hdr", m.tap(i)),
			fmt.Sprintf("link set %s master %s up", m.tap(i), n.bridge),
		} {
			if out, err := m.hypervisor.Run(t.Context(), "ip", strings.Fields(command)...); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	}
}

// cut takes the power away: QEMU ends at once, and what the machine had not written is
// gone.
func (m *machine) cut(t *testing.T) {
	t.Helper()
	c, err := net.Dial("unix", m.file("monitor.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "quit\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.process.Done():
	case <-time.After(patience):
		t.Fatal("QEMU does not end")
	}
}

// control is what tells a terminal where to write, and how.
var control = regexp.MustCompile("\x1b\\[[0-9;?!]*[a-zA-Z]|\r")

// console returns all that the serial console has shown so far, as text.
func (m *machine) console() string {
	text, err := os.ReadFile(m.file("console.log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return control.ReplaceAllString(string(text), "")
}

// shows waits until the console shows something new: behind the mark, which is how much
// it had shown before.
func (m *machine) shows(t *testing.T, mark int, text string) {
	t.Helper()
	m.await(t, "the console shows "+text, func() error {
		if shown := m.console(); !strings.Contains(shown[min(mark, len(shown)):], text) {
			return errors.New("it does not")
		}
		return nil
	})
}

// await asks again and again until f returns nil.
func (m *machine) await(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-m.process.Done():
			t.Fatalf("%s: QEMU ended: %s", m.name, m.process.Output())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited for: %s: %v", m.name, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// try runs a shell command in the machine, as root, by SSH. The host's key is that of
// the first time, or it fails.
func (m *machine) try(stdin io.Reader, command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-q", "-i", m.key, "-o", "BatchMode=yes", "-o", "ConnectTimeout=5",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile="+m.file("known_hosts"), "root@"+m.address.String(), command)
	cmd.Stdin = stdin
	p, err := m.from.Start(cmd)
	if err != nil {
		return "", err
	}
	err = p.Wait()
	return p.Output(), err
}

func (m *machine) run(t *testing.T, command string) string {
	t.Helper()
	out, err := m.try(nil, command)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", m.name, command, err, out)
	}
	return out
}

// write puts a file into the machine, through to its disk.
func (m *machine) write(t *testing.T, path, text string) {
	t.Helper()
	if out, err := m.try(strings.NewReader(text), fmt.Sprintf("cat >%[1]s.new && mv %[1]s.new %[1]s && chown root:weir %[1]s && sync", path)); err != nil {
		t.Fatalf("%s: write %s: %v\n%s", m.name, path, err, out)
	}
}

// has compares files of the machine, mostly the kernel's, with what they should have.
func (m *machine) has(t *testing.T, files map[string]string) {
	t.Helper()
	for path, want := range files {
		if got := strings.TrimSpace(m.run(t, "cat "+path)); got != want {
			t.Errorf("%s: %s has %q, want %q", m.name, path, got, want)
		}
	}
}

// login waits until one can log in by SSH.
func (m *machine) login(t *testing.T) {
	t.Helper()
	m.await(t, "log in by ssh", func() error {
		out, err := m.try(nil, "true")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }
