package flow

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

// An Entry and a header are a cache line each; the layout depends on it. The Tuple
// has no pointer and must not grow.
const lineSize = 64

var (
	_ = [1]struct{}{}[unsafe.Sizeof(Entry{})-lineSize]
	_ = [1]struct{}{}[unsafe.Sizeof(header{})-lineSize]
	_ = [1]struct{}{}[unsafe.Sizeof(set{})-setLines*lineSize]
	_ = [1]struct{}{}[unsafe.Offsetof(set{}.entries)-lineSize]
	_ = [1]struct{}{}[unsafe.Sizeof(packet.Tuple{})-38]
)

// Number returns the number of the place that e, an entry of this table, is in.
// Few want it, so Lookup and Insert need not return it to all.
func (t *Table) Number(e *Entry) uint32 {
	return uint32((uintptr(unsafe.Pointer(e)) - uintptr(unsafe.Pointer(unsafe.SliceData(t.lines)))) / lineSize)
}

// mapMemory maps zeroed memory for the sets. It is page aligned, hence they are
// aligned to cache lines. The table owns it, and the garbage collector never sees it.
func (t *Table) mapMemory(sets int) error {
	size := sets * int(unsafe.Sizeof(set{}))
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d KiB (free memory, or ask for fewer flows): %w", size>>10, err)
	}
	// Huge pages are a wish: without them only the TLB misses more.
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	// EINVAL is a kernel before 5.14: pages then come as they are touched.
	if err := unix.Madvise(memory, unix.MADV_POPULATE_WRITE); err != nil && !errors.Is(err, unix.EINVAL) {
		_ = unix.Munmap(memory)
		return fmt.Errorf("fill %d KiB (free memory, or ask for fewer flows): %w", size>>10, err)
	}
	t.memory = memory
	t.sets = unsafe.Slice((*set)(unsafe.Pointer(&memory[0])), sets)
	t.lines = unsafe.Slice((*Entry)(unsafe.Pointer(&memory[0])), sets*setLines)
	return nil
}

// Close gives the memory back; every Entry of the table is gone with it, and
// of the other methods only Len, Cap and Sets may still be called: they return
// 0. It may be called twice.
func (t *Table) Close() error {
	if t.memory == nil {
		return nil
	}
	memory := t.memory
	t.memory, t.sets, t.lines, t.len = nil, nil, nil, 0
	if err := unix.Munmap(memory); err != nil {
		return fmt.Errorf("unmap flow table: %w", err)
	}
	return nil
}
