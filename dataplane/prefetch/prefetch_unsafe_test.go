package prefetch

import (
	"math"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// atTheEnd returns n elements that end where memory does: whoever reads one more is
// ended by the kernel.
func atTheEnd[T any](t *testing.T, n int) []T {
	t.Helper()
	page := unix.Getpagesize()
	memory, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	if err := unix.Mprotect(memory[page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	var element T
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[page-n*int(unsafe.Sizeof(element))])), n)
}

// Of what it is given, exactly that is read, and an index of nothing is no error. What
// is asked for cannot be seen.
func TestReadsWhatItIsGiven(t *testing.T) {
	elements := make([][9]uint64, 8)
	for _, n := range []int{1, 2, 15, 16, 64} {
		indexes, hashes := atTheEnd[uint32](t, n), atTheEnd[uint64](t, n)
		for i := range n {
			indexes[i], hashes[i] = math.MaxUint32-uint32(i), math.MaxUint64-uint64(i)
		}
		Elements(elements, indexes)
		Hashed(elements, hashes)
		for i := range n {
			if indexes[i] != math.MaxUint32-uint32(i) || hashes[i] != math.MaxUint64-uint64(i) {
				t.Errorf("%d of %d was written to", i, n)
			}
		}
	}
	Elements(elements, nil)
	Hashed(elements, nil)
	Elements[byte](nil, []uint32{0, 1})
	Hashed[byte](nil, []uint64{0, 1})
}
