package reserve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// record is the file that says which ports weir has added to the list. Without
// a path it does nothing.
type record struct {
	path string
	of   namespace
}

// namespace tells a network namespace apart from those that were before it: the
// kernel uses numbers again, and a list does not outlive its boot.
type namespace struct {
	Boot   string `json:"boot"`             // /proc/sys/kernel/random/boot_id
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE; 0 before Linux 5.14
}

// text is what the file holds, so that somebody who finds it can do by hand what
// it is for.
type text struct {
	Reserved string `json:"reserved_ports"`
	namespace
}

// newRecord finds the file of the calling thread's network namespace, whether
// it is there or not.
func newRecord(dir string) (record, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return record{}, fmt.Errorf("look up network namespace: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return record{}, fmt.Errorf("look up boot: %w", err)
	}
	r := record{
		path: filepath.Join(dir, fmt.Sprintf("reserved-ports-%d.json", ns.Ino)),
		of:   namespace{Boot: strings.TrimSpace(string(boot))},
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return record{}, fmt.Errorf("look up network namespace: %w", err)
	}
	defer func() { _ = unix.Close(socket) }()
	r.of.Cookie, err = unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return record{}, fmt.Errorf("look up network namespace: %w", err)
	}
	return r, nil
}

// read returns no ports if there is no record, or one of another namespace.
func (r *record) read() (portSet, error) {
	if r.path == "" {
		return portSet{}, nil
	}
	b, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return portSet{}, nil
	}
	if err != nil {
		return portSet{}, fmt.Errorf("read record of reserved ports: %w", err)
	}
	ports, of, err := parseRecord(b)
	if err != nil {
		return portSet{}, fmt.Errorf("read record of reserved ports %s: %w", r.path, err)
	}
	if of != r.of {
		return portSet{}, nil
	}
	return ports, nil
}

func parseRecord(b []byte) (portSet, namespace, error) {
	var t text
	if err := json.Unmarshal(b, &t); err != nil {
		return portSet{}, namespace{}, err
	}
	ports, err := parsePorts(t.Reserved)
	return ports, t.namespace, err
}

// write replaces the file as a whole, so that a process killed meanwhile leaves
// the old one or the new one. For no ports there is no file.
func (r *record) write(ports *portSet) error {
	if r.path == "" {
		return nil
	}
	if *ports == (portSet{}) {
		if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove record of reserved ports: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(text{ports.String(), r.of})
	if err == nil {
		err = os.MkdirAll(filepath.Dir(r.path), 0o755)
	}
	temp := r.path + ".new"
	if err == nil {
		err = os.WriteFile(temp, append(b, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(temp, r.path)
	}
	if err != nil {
		return fmt.Errorf("write record of reserved ports: %w", err)
	}
	return nil
}
