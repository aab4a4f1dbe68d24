package nat

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inHugePages asks for huge pages behind sets, which nobody has touched yet. The memory
// stays Go's. That is a wish: without them only the TLB misses more.
func inHugePages(sets [][ways]uint64) {
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(sets))), len(sets)*ways*8)
	page := os.Getpagesize()
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(memory)))) & (page - 1)
	if skip < len(memory) {
		_ = unix.Madvise(memory[skip:], unix.MADV_HUGEPAGE)
	}
}
