//go:build amd64 || arm64

package prefetch

import "unsafe"

// These are in loops_amd64.s and loops_arm64.s. size is that of an element, in bytes,
// and mask is what of a hash is an index.

//go:noescape
func elements(first unsafe.Pointer, size uintptr, indexes []uint32)

//go:noescape
func hashed(first unsafe.Pointer, size uintptr, mask uint64, hashes []uint64)
