package xdplink

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// ForeignProgramError says that a NIC already has an XDP program, with all
// that could be found out about it. What could not is left zero: it takes
// CAP_SYS_ADMIN to ask for names and links, and a holder in another PID
// namespace is not to be seen.
type ForeignProgramError struct {
	Interface string         // name of the NIC
	Name      string         // of the program: the 15 characters the kernel keeps
	ID        ebpf.ProgramID // as in "bpftool prog show id"; zero if there are several
	Mode      Mode           // zero if there are several programs
	Link      link.ID        // the bpf_link that holds it; zero if attached without one, or unknown
	PID       int            // process that holds the link; zero if none found, as when it is pinned
	Process   string         // that process's name
}

// Error names the program and its holder, and says how to detach it.
func (e *ForeignProgramError) Error() string {
	var b strings.Builder
	if e.ID == 0 {
		fmt.Fprintf(&b, "interface %s already has several XDP programs: see \"ip -d link show dev %s\", detach them first",
			e.Interface, e.Interface)
		return b.String()
	}
	fmt.Fprintf(&b, "interface %s already has an XDP program: ", e.Interface)
	if e.Name != "" {
		fmt.Fprintf(&b, "%q, ", e.Name)
	}
	fmt.Fprintf(&b, "id %d, %s mode", e.ID, e.Mode)
	switch {
	case e.Link == 0:
		fmt.Fprintf(&b, "; detach it with \"ip link set dev %s %s off\"", e.Interface, e.Mode.ipKeyword())
	case e.PID != 0:
		fmt.Fprintf(&b, ", held by bpf_link %d of process %d (%s); stop that process, or detach with \"bpftool link detach id %d\"",
			e.Link, e.PID, e.Process, e.Link)
	default:
		fmt.Fprintf(&b, ", held by bpf_link %d (pinned, or of a process not to be seen from here); detach it with \"bpftool link detach id %d\"",
			e.Link, e.Link)
	}
	return b.String()
}

// ipKeyword is ip-link(8)'s word for the mode. Plain "xdp off" would not do: on
// a NIC with native XDP it leaves a generic program where it is.
func (m Mode) ipKeyword() string {
	switch m {
	case Native:
		return "xdpdrv"
	case Generic:
		return "xdpgeneric"
	case Offload:
		return "xdpoffload"
	}
	return "xdp"
}

// programName returns the 15 characters that the kernel keeps of a program's
// name, or nothing.
func programName(id ebpf.ProgramID) string {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// linkOf returns the bpf_link that attaches prog to the NIC, zero if there is
// none. A program attached by netlink has no link.
func linkOf(prog ebpf.ProgramID, ifindex int) link.ID {
	if prog == 0 {
		return 0
	}
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil || info.Program != prog {
			continue
		}
		if xdp := info.XDP(); xdp != nil && int(xdp.Ifindex) == ifindex {
			return info.ID
		}
	}
	return 0
}

// holder returns one process with the link open, from the "link_id:" line in
// its fdinfo (kernel/bpf/syscall.c, bpf_link_show_fdinfo).
func holder(proc string, id link.ID) (pid int, name string) {
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil {
		return 0, ""
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(target, "anon_inode:") || !strings.Contains(target, "bpf") {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		info, err := os.ReadFile(filepath.Join(dir, "fdinfo", filepath.Base(fd)))
		if err != nil || linkID(info) != id {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join(dir, "comm")) // only a name; the pid will do without
		return pid, strings.TrimSpace(string(comm))
	}
	return 0, ""
}

// linkID finds the link's id in an fdinfo file, zero if it is not a link's.
func linkID(fdinfo []byte) link.ID {
	lines := bufio.NewScanner(bytes.NewReader(fdinfo))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "link_id:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				return 0
			}
			return link.ID(id)
		}
	}
	return 0
}
