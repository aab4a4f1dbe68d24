package reserve

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// newNS puts the test's thread into a network namespace of its own, whose
// reserved ports are these.
func newNS(t *testing.T, reserved string) {
	t.Helper()
	labtest.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	setReserved(t, reserved)
}

func setReserved(t *testing.T, ports string) {
	t.Helper()
	if err := os.WriteFile(reservedPath, []byte(ports+"\n"), 0); err != nil {
		t.Fatal(err)
	}
}

func wantReserved(t *testing.T, want string) {
	t.Helper()
	list, err := os.Open(reservedPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = list.Close() }()
	got := make([]byte, 1<<20) // the kernel gives it in one piece
	n, err := list.Read(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(got[:n]) != want+"\n" {
		t.Errorf("reserved are %.200q, want %.200q", got[:n], want)
	}
}

func wantFiles(t *testing.T, dir string, want int) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if len(files) != want {
		t.Errorf("files in the state folder: %v, want %d", files, want)
	}
}

// parse reads ranges such as 1-2,5.
func parse(t *testing.T, text string) []Range {
	t.Helper()
	set, err := parsePorts(text)
	if err != nil {
		t.Fatal(err)
	}
	var ranges []Range
	for at := set.next(0, 0); at < 65536; {
		end := set.next(at, ^uint64(0))
		ranges = append(ranges, Range{uint16(at), uint16(end - 1)})
		at = set.next(end, 0)
	}
	return ranges
}

// start reserves, and fails if anything is logged.
func start(t *testing.T, dir, ports string) *Reservation {
	t.Helper()
	var log bytes.Buffer
	r, err := Reserve(dir, parse(t, ports), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log.String())
	}
	return r
}

// What others have reserved is there again in the end, whatever was reserved
// for weir in between; and so if weir is killed at each step, and started anew.
func TestReserve(t *testing.T) {
	for _, test := range []struct {
		name, before string
		steps        []string // what is reserved for weir, one after the other
		during       []string // what is reserved then
	}{
		{"alone", "", []string{"50000-59999"}, []string{"50000-59999"}},
		{"beside", "22,8080", []string{"50000-59999"}, []string{"22,8080,50000-59999"}},
		{"overlapping", "49000-50010", []string{"50000-59999"}, []string{"49000-59999"}},
		{"inside", "40000-60000", []string{"50000-59999"}, []string{"40000-60000"}},
		{"around", "50001-50002,55555", []string{"50000-59999"}, []string{"50000-59999"}},
		{"adjacent", "49999,60000", []string{"50000-59999"}, []string{"49999-60000"}},
		{"several ranges", "53", []string{"50000-50009,50020,50030-50039"}, []string{"53,50000-50009,50020,50030-50039"}},
		{"the last port", "", []string{"65535"}, []string{"65535"}},
		{"more and less", "50005", []string{"50000-50009", "50000-50019", "50008-50012", "60000"},
			[]string{"50000-50009", "50000-50019", "50005,50008-50012", "50005,60000"}},
		{"nothing", "22", []string{"", "50000", "", "50000"}, []string{"22", "22,50000", "22", "22,50000"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			newNS(t, test.before)
			dir := filepath.Join(t.TempDir(), "made", "if missing")
			r := start(t, dir, test.steps[0])
			wantReserved(t, test.during[0])
			for i := range test.steps[1:] {
				if err := r.Update(parse(t, test.steps[i+1])); err != nil {
					t.Fatal(err)
				}
				wantReserved(t, test.during[i+1])
			}
			// From another thread, thus another network namespace.
			closed := make(chan error)
			for range 2 {
				go func() { closed <- r.Close() }()
				if err := <-closed; err != nil {
					t.Error(err)
				}
				wantReserved(t, test.before)
				wantFiles(t, dir, 0)
			}
			if err := r.Update(nil); err == nil {
				t.Error("reserves what nobody will release")
			}

			for i := range test.steps { // each of them is killed
				start(t, dir, test.steps[i])
				wantReserved(t, test.during[i])
			}
			start(t, dir, "")
			wantReserved(t, test.before)
			wantFiles(t, dir, 0)
		})
	}
}

// One that is killed at any point leaves nothing that the next one does not
// undo.
func TestRecordComesFirst(t *testing.T) {
	newNS(t, "22")
	dir := t.TempDir()
	r := start(t, dir, "50000-50009")
	var more portSet
	more.add(Range{50000, 50019})
	r.keep(&more) // killed before the list was changed
	start(t, dir, "60000")
	wantReserved(t, "22,60000")
	r = start(t, dir, "60000")
	setReserved(t, "22,60000-60009") // killed before the record was narrowed
	more.add(Range{60000, 60009})
	r.keep(&more)
	start(t, dir, "")
	wantReserved(t, "22")
}

// What others change meanwhile stays.
func TestOthersChange(t *testing.T) {
	newNS(t, "22,50005")
	r := start(t, t.TempDir(), "50000-50009")
	setReserved(t, "50000-50009,8080")
	if err := r.Update(parse(t, "50000-50019")); err != nil {
		t.Fatal(err)
	}
	wantReserved(t, "8080,50000-50019")
	setReserved(t, "53")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	wantReserved(t, "53")
}

// A record is for the namespace and the boot it was made in.
func TestRecordOfAnother(t *testing.T) {
	for name, change := range map[string]func(*namespace){
		"boot":      func(n *namespace) { n.Boot = "another" },
		"namespace": func(n *namespace) { n.Cookie++ },
	} {
		t.Run(name, func(t *testing.T) {
			newNS(t, "50000-50009")
			dir := t.TempDir()
			stale, err := newRecord(dir)
			if err != nil {
				t.Fatal(err)
			}
			if stale.of.Boot == "" || stale.of.Cookie == 0 {
				t.Errorf("namespace %+v", stale.of)
			}
			change(&stale.of)
			var ports portSet
			ports.add(Range{50000, 50009})
			if err := stale.write(&ports); err != nil {
				t.Fatal(err)
			}
			r := start(t, dir, "")
			wantReserved(t, "50000-50009")
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			wantReserved(t, "50000-50009")
			wantFiles(t, dir, 0)
		})
	}
}

// Without its record weir works as if there were none.
func TestRecordFails(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"not a record", func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }, "stay reserved"},
		{"not ports", func(path string) error {
			return os.WriteFile(path, []byte(`{"reserved_ports": "70000"}`), 0o600)
		}, "70000"},
		{"neither to be read nor written", func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o755) }, "does not know"},
	} {
		t.Run(test.name, func(t *testing.T) {
			newNS(t, "22")
			dir := t.TempDir()
			of, err := newRecord(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.make(of.path); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			r, err := Reserve(dir, []Range{{50000, 50009}}, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), test.want) || !strings.Contains(log.String(), "WARN") {
				t.Errorf("logged %s, want %q in it", log.String(), test.want)
			}
			wantReserved(t, "22,50000-50009")
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			wantReserved(t, "22")
		})
	}
}

// A list of many pages comes back as it was.
func TestLongList(t *testing.T) {
	var ports portSet
	for port := 1; port < 65536; port += 2 {
		ports.add(Range{uint16(port), uint16(port)})
	}
	newNS(t, ports.String())
	wantReserved(t, ports.String())
	r := start(t, t.TempDir(), "50000-59999")
	during := ports
	during.add(Range{50000, 59999})
	wantReserved(t, during.String())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	wantReserved(t, ports.String())
}

func TestReserveRefuses(t *testing.T) {
	newNS(t, "32768-49999")
	for name, ranges := range map[string][]Range{
		"port 0":                  {{0, 5}},
		"reversed":                {{6, 5}},
		"all ephemeral ports":     {{1024, 65535}},
		"the last ephemeral ones": {{50000, 60999}},
	} {
		if _, err := Reserve(t.TempDir(), ranges, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: accepted", name)
		}
		wantReserved(t, "32768-49999")
	}
	// What can be told before.
	for want, ranges := range map[bool][]Range{false: {{1024, 40000}, {40001, 65535}}, true: {{50000, 60998}}} {
		if err := Check(ranges); (err == nil) != want {
			t.Errorf("%v: %v", ranges, err)
		}
	}
	// If others leave none, that is their business.
	setReserved(t, "32768-60999")
	r := start(t, t.TempDir(), "61000-65535")
	if err := r.Update([]Range{{50000, 60999}, {1, 0}}); err == nil {
		t.Error("reversed: accepted")
	}
	wantReserved(t, "32768-65535")
}

// Where the list cannot be written, it need not be if it has everything.
func TestReadOnly(t *testing.T) {
	newNS(t, "50000-59999")
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		source string
		flags  uintptr
	}{{"", unix.MS_REC | unix.MS_PRIVATE}, {"/proc/sys", unix.MS_BIND}, {"", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY}} {
		target := "/proc/sys"
		if step.flags&unix.MS_PRIVATE != 0 {
			target = "/"
		}
		if err := unix.Mount(step.source, target, "", step.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Reserve(t.TempDir(), []Range{{40000, 59999}}, slog.New(slog.DiscardHandler)); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "ip_local_reserved_ports=40000-59999") {
		t.Errorf("%v, want what to do about a read-only file system", err)
	}
	dir := t.TempDir()
	r := start(t, dir, "50000-50009")
	wantFiles(t, dir, 0)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	wantReserved(t, "50000-59999")
}

// The kernel does not choose what is reserved, and InUse finds what is chosen
// in spite of it.
func TestKernelObeys(t *testing.T) {
	newNS(t, "")
	if err := os.WriteFile(ephemeralPath, []byte("50000 50009"), 0); err != nil {
		t.Fatal(err)
	}
	r := start(t, t.TempDir(), "50000-50008")
	socket, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	if port := socket.LocalAddr().(*net.UDPAddr).Port; port != 50009 {
		t.Errorf("the kernel chose %d", port)
	}
	if other, err := net.ListenPacket("udp4", "0.0.0.0:0"); err == nil {
		t.Errorf("the kernel chose %v", other.LocalAddr())
		_ = other.Close()
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if other, err := net.ListenPacket("udp4", "0.0.0.0:0"); err != nil {
		t.Error(err)
	} else {
		_ = other.Close()
	}
}

func TestInUse(t *testing.T) {
	newNS(t, "")
	up(t)
	want := make(map[string]bool)
	for _, at := range []struct{ network, address, found string }{
		{"udp4", "127.0.0.1:50000", "udp 127.0.0.1:50000"},
		{"udp6", "[::1]:50001", "udp [::1]:50001"},
		{"udp", ":50002", "udp [::]:50002"},
		{"udp4", "127.0.0.1:49999", ""},
	} {
		c, err := net.ListenPacket(at.network, at.address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if at.found != "" {
			want[at.found] = true
		}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:50009")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	want["tcp 127.0.0.1:50009"] = true
	c, err := net.Dial("tcp4", "127.0.0.1:50009")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	want[fmt.Sprintf("tcp 127.0.0.1:50009 from %s", c.LocalAddr())] = true

	found, err := InUse([]Range{{50000, 50004}, {50009, 50009}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range found {
		if !want[s.String()] {
			t.Errorf("found %s", s)
		}
		delete(want, s.String())
	}
	for s := range want {
		t.Errorf("%s was not found", s)
	}
}

// up makes the loopback interface usable.
func up(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

func TestReadSockets(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C350 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:C351 0200007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0100007F:C351 0200007F:0051 06 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0100007F:C34F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
`
	var ports portSet
	ports.add(Range{50000, 50009})
	got, err := readSockets(strings.NewReader(table), "tcp", &ports)
	want := fmt.Sprint([]Socket{
		{"tcp", netip.MustParseAddrPort("127.0.0.1:50000"), netip.AddrPort{}},
		{"tcp", netip.MustParseAddrPort("127.0.0.1:50001"), netip.MustParseAddrPort("127.0.0.2:80")},
	})
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"0: 0100007F:C350", "0: 0100007F C350 0A 1", "0: 0100:C350 00000000:0000 0A", "0: 0100007F:C350 00000000:0000 XX"} {
		if got, err := readSockets(strings.NewReader(bad), "tcp", &ports); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
