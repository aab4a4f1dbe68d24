package clab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// enter gives this process, the first of a node, the root that the node is to
// have: all of the machine's files as they are, and what is written stays with
// the node and is gone with it. It is in namespaces of its own already.
//
// The machine's root is the lower layer of an overlay, the upper one is memory
// (kernel, Documentation/filesystems/overlayfs.rst). An overlay shows no mount
// below its layers, so each of these gets one of its own.
func (h *holding) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	sources, err := openAll(h.Binds)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	below, err := mountsBelow()
	if err != nil {
		return err
	}
	if err := unix.Mount("weirlab", h.Place, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount memory for what the node writes: %w", err)
	}
	root := filepath.Join(h.Place, "root")
	if err := overlay("/", root, h.Place, 0); err != nil {
		return fmt.Errorf("show the machine's files in the node: %w: it needs a kernel with overlayfs, and a root of the machine that overlayfs can have below it", err)
	}
	for i, path := range below {
		if err := show(path, root, h.Place, i+1); err != nil {
			return fmt.Errorf("show %s in the node: %w", path, err)
		}
	}
	if err := kernelMounts(root); err != nil {
		return err
	}
	if err := h.identify(root); err != nil {
		return err
	}
	if err := pivot(root, func() error { return bindAll(h.Binds, sources) }); err != nil {
		return err
	}
	return h.environment()
}

// overlay mounts at root what is at lower, with layers of that number in place.
func overlay(lower, root, place string, number int) error {
	upper, work := filepath.Join(place, fmt.Sprintf("upper%d", number)), filepath.Join(place, fmt.Sprintf("work%d", number))
	for _, dir := range []string{upper, work, root} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The upper directory is that of the merged one.
	if info, err := os.Stat(lower); err == nil {
		if err := os.Chmod(upper, info.Mode()); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", escape(lower), escape(upper), escape(work))
	if err := unix.Mount("weirlab", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay over %s: %w", lower, err)
	}
	return nil
}

// escape takes the meaning from characters that have one in overlayfs's options.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// notShown are directories whose mounts a node has no part in: it has its own.
var notShown = []string{"/proc", "/sys", "/dev", "/run", "/var/run", "/tmp"}

// mountsBelow returns what is mounted below the root and is to be shown, parents
// first (proc(5), /proc/PID/mountinfo).
func mountsBelow() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look up mounts: %w", err)
	}
	var paths []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		path := unescape.Replace(fields[4])
		hidden := slices.ContainsFunc(notShown, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
		if path != "/" && !hidden {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// show shows a mount of the machine in the node: a directory as the root is, or,
// where no overlay can be over it, for reading only; a file by a copy.
func show(path, root, place string, number int) error {
	at := filepath.Join(root, path)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil // not to be seen by us, so not by the node
	case info.Mode().IsRegular():
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(at, data, info.Mode())
	case !info.IsDir():
		return nil
	}
	if overlay(path, at, place, number) == nil {
		return nil
	}
	if err := unix.Mount(path, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return readOnly(at)
}

func readOnly(at string) error {
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", at, err)
	}
	return nil
}

// kernelMounts mounts what shows a process its own namespaces, and the
// directories in which machines keep what does not outlive a boot.
func kernelMounts(root string) error {
	type mount struct {
		source, at, kind string
		flags            uintptr
		options          string
	}
	for _, m := range []mount{
		{"proc", "proc", "proc", 0, ""},
		{"sysfs", "sys", "sysfs", 0, ""},
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"weirlab", "dev/shm", "tmpfs", 0, "mode=1777"},
		{"weirlab", "run", "tmpfs", 0, "mode=0755"},
		{"weirlab", "tmp", "tmpfs", 0, "mode=1777"},
	} {
		if err := unix.Mount(m.source, filepath.Join(root, m.at), m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount /%s of the node: %w", m.at, err)
		}
	}
	return os.Mkdir(filepath.Join(root, "run/lock"), 0o755)
}

// identify gives the node its name.
func (h *holding) identify(root string) error {
	if err := unix.Sethostname([]byte(h.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 %s\n", h.Hostname)
	return errors.Join(
		os.WriteFile(filepath.Join(root, "etc/hostname"), []byte(h.Hostname+"\n"), 0o644),
		os.WriteFile(filepath.Join(root, "etc/hosts"), []byte(hosts), 0o644))
}

// pivot makes root the root of all processes in this mount namespace, and has
// last run while the old one is still there (pivot_root(2)).
func pivot(root string, last func() error) error {
	const old = ".machine"
	if err := os.Mkdir(filepath.Join(root, old), 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, filepath.Join(root, old)); err != nil {
		return fmt.Errorf("change to the node's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := last(); err != nil {
		return err
	}
	if err := unix.Unmount("/"+old, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root: %w", err)
	}
	return os.Remove("/" + old)
}

// openAll opens what is to be bound while its paths mean what the file means.
func openAll(binds []Bind) ([]*os.File, error) {
	var all []*os.File
	for _, b := range binds {
		fd, err := unix.Open(b.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("bind %s: %w", b.Source, err)
		}
		all = append(all, os.NewFile(uintptr(fd), b.Source))
	}
	return all, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// bindAll mounts what has been opened at its places in the node's root, which is
// the root by now, so that symbolic links in it mean what they mean to the node.
func bindAll(binds []Bind, sources []*os.File) error {
	for i, b := range binds {
		if err := bindTo(b, sources[i]); err != nil {
			return fmt.Errorf("bind %s to %s: %w", b.Source, b.Target, err)
		}
	}
	return nil
}

func bindTo(b Bind, source *os.File) error {
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(b.Target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(b.Target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(b.Target, os.O_RDONLY|os.O_CREATE, 0o644); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", source.Fd()), b.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if b.ReadOnly {
		return readOnly(b.Target)
	}
	return nil
}

// environment makes the node's variables this process's, which looks programs up
// by them.
func (h *holding) environment() error {
	os.Clearenv()
	for _, assignment := range h.Env {
		name, value, _ := strings.Cut(assignment, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
