package nat

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inHugePages asks for huge pages behind sets, which the kernel puts them into in the
// background (khugepaged), as they have been touched: the worker that makes an Index would
// wait four times as long for it, 190 ms for a million flows, if they came at once. It is
// a wish: without them only the TLB misses more. The memory stays Go's, which may use it
// for something else one day.
func inHugePages(sets [][ways]uint64) {
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(sets))), len(sets)*ways*8)
	page := os.Getpagesize()
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(memory)))) & (page - 1)
	if skip < len(memory) {
		_ = unix.Madvise(memory[skip:], unix.MADV_HUGEPAGE)
	}
}
