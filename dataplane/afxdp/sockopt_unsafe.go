package afxdp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringOffsets asks where in their mappings the rings have their parts.
func ringOffsets(fd int) (unix.XDPMmapOffsets, error) {
	var off unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(off))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return off, fmt.Errorf("get ring offsets: %w", errno)
	}
	if size != uint32(unsafe.Sizeof(off)) {
		return off, fmt.Errorf("get ring offsets: the kernel has no wake-up flags in its rings (needs Linux 5.9 or newer)")
	}
	return off, nil
}

// statistics asks what the kernel has counted on a socket.
func statistics(fd int) (unix.XDPStatistics, error) {
	var s unix.XDPStatistics
	size := uint32(unsafe.Sizeof(s))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_STATISTICS,
		uintptr(unsafe.Pointer(&s)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return s, fmt.Errorf("get socket statistics: %w", errno)
	}
	return s, nil
}
