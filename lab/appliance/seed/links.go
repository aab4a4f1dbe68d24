package seed

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Rename gives interfaces the names that the seed has for their MAC addresses. It has
// to be called while they are down, before anything manages them. Names may be
// exchanged, so each goes by one that nobody has.
func Rename(links []Link, say func(format string, args ...any)) error {
	present, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var nics []nic
	byName := make(map[string]netlink.Link)
	for _, p := range present {
		if p.Type() == "device" {
			nics = append(nics, nic{p.Attrs().Name, p.Attrs().HardwareAddr})
			byName[p.Attrs().Name] = p
		}
	}
	changes, err := renames(nics, links)
	errs := []error{err}
	for i, c := range changes {
		if err := netlink.LinkSetName(byName[c.from], fmt.Sprintf("weirtmp%d", i)); err != nil {
			errs = append(errs, fmt.Errorf("rename %s: %w", c.from, err))
		}
	}
	for _, c := range changes {
		if err := netlink.LinkSetName(byName[c.from], c.to); err != nil {
			errs = append(errs, fmt.Errorf("rename %s to %s: %w", c.from, c.to, err))
			continue
		}
		say("interface %s is now %s", c.from, c.to)
	}
	return errors.Join(errs...)
}

// nic is an interface as the kernel has it.
type nic struct {
	name string
	mac  net.HardwareAddr
}

type rename struct{ from, to string }

// renames returns what makes the names those of the links. An interface that no link
// is for has to give up a name that another gets; it takes one that has become free, of
// which there are as many.
func renames(nics []nic, links []Link) (list []rename, err error) {
	var errs []error
	to := make(map[string]string)
	taken := make(map[string]bool)
	for _, l := range links {
		if l.MAC == nil {
			continue
		}
		i := slices.IndexFunc(nics, func(n nic) bool { return bytes.Equal(n.mac, l.MAC) })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%s: no interface has the MAC address %s", l.Name, l.MAC))
			continue
		}
		to[nics[i].name], taken[l.Name] = l.Name, true
	}
	var free []string
	for _, n := range nics {
		if to[n.name] != "" && !taken[n.name] {
			free = append(free, n.name)
		}
	}
	for _, n := range nics {
		name := to[n.name]
		if name == "" && taken[n.name] {
			name, free = free[0], free[1:]
		}
		if name != "" && name != n.name {
			list = append(list, rename{n.name, name})
		}
	}
	return list, errors.Join(errs...)
}

// group returns the group of a file.
func group(path string) (int, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("stat %s: no owner", path)
	}
	return int(stat.Gid), nil
}
