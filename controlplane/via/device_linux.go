package via

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// deviceName is completed by the kernel.
	deviceName = "weir%d"

	// deviceMTU is the least that IPv6 allows (RFC 8200 section 5), so that a
	// packet fits every path, with room for the outer header on nearly all.
	deviceMTU = 1280

	// deviceQueue is how many packets wait in the device while Run does not come
	// to its turn; the default, 500, is a thirtieth of a second of many checks.
	deviceQueue = 8192
)

func (r *routing) openDevice() error {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("open %s (modprobe tun; in a container, pass the device in): %w", path, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("open %s (run as root; in a container or unit, allow the device): %w", path, err)
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	r.tun = fd
	request, err := unix.NewIfreq(deviceName)
	if err != nil {
		return fmt.Errorf("name device: %w", err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("create TUN device (run as root or with CAP_NET_ADMIN): %w", err)
	}
	r.device = request.Name()
	return nil
}

// configure keeps the kernel from using the device for anything of its own: no
// link-local address, no router solicitations, no multicast reports.
func (r *routing) configure() error {
	link, err := r.handle.LinkByName(r.device)
	if err != nil {
		return fmt.Errorf("look up %s: %w", r.device, err)
	}
	r.index = link.Attrs().Index
	r.quiet()
	for _, set := range []func() error{
		func() error { return r.handle.LinkSetMTU(link, deviceMTU) },
		func() error { return r.handle.LinkSetTxQLen(link, deviceQueue) },
		func() error { return r.handle.LinkSetMulticastOff(link) },
		func() error { return r.handle.LinkSetUp(link) },
	} {
		if err := set(); err != nil {
			return fmt.Errorf("set up %s: %w", r.device, err)
		}
	}
	return nil
}

// quiet is best effort: /proc/sys may be read-only, and what the kernel then
// sends by itself is dropped as stray.
func (r *routing) quiet() {
	for key, value := range map[string]string{
		"ipv6/conf/" + r.device + "/addr_gen_mode":        "1", // none
		"ipv6/conf/" + r.device + "/accept_ra":            "0",
		"ipv6/conf/" + r.device + "/router_solicitations": "0",
	} {
		_ = os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0o644)
	}
}
