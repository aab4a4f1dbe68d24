package nat

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inHugePages asks for huge pages behind sets. The memory stays Go's, which may use it for
// something else one day. That is a wish: without them only the TLB misses more, and what
// Go has used before comes in them later, if at all.
func inHugePages(sets [][ways]uint64) {
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(sets))), len(sets)*ways*8)
	page := os.Getpagesize()
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(memory)))) & (page - 1)
	if skip < len(memory) {
		_ = unix.Madvise(memory[skip:], unix.MADV_HUGEPAGE)
	}
}
