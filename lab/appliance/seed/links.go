package seed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Rename gives interfaces the names that the seed has for their MAC addresses. It has
// to be called while they are down, before anything manages them. One that two
// exchange goes by a name that nobody has.
func Rename(links []Link) error {
	present, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	type change struct {
		link netlink.Link
		to   string
	}
	var changes []change
	var errs []error
	for _, l := range links {
		if l.MAC == nil {
			continue
		}
		var found netlink.Link
		for _, p := range present {
			if p.Type() == "device" && bytes.Equal(p.Attrs().HardwareAddr, l.MAC) {
				found = p
				break
			}
		}
		switch {
		case found == nil:
			errs = append(errs, fmt.Errorf("%s: no interface has the MAC address %s", l.Name, l.MAC))
		case found.Attrs().Name != l.Name:
			changes = append(changes, change{found, l.Name})
		}
	}
	for i, c := range changes {
		if err := netlink.LinkSetName(c.link, fmt.Sprintf("weirtmp%d", i)); err != nil {
			errs = append(errs, fmt.Errorf("rename %s: %w", c.link.Attrs().Name, err))
		}
	}
	for _, c := range changes {
		if err := netlink.LinkSetName(c.link, c.to); err != nil {
			errs = append(errs, fmt.Errorf("rename %s to %s: %w", c.link.Attrs().Name, c.to, err))
		}
	}
	return errors.Join(errs...)
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
