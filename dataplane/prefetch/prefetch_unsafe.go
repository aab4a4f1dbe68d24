// Package prefetch asks for memory before it is needed.
//
// The problem it solves: a load that waits for memory holds up what comes after it.
// Instructions leave a processor in order, so behind such a load there is room for some
// hundred others and no more. A prefetch instruction leaves at once, and what it has
// asked for comes while other work is done. Go has none that a program could use, so
// these are loops of assembly, for amd64 and arm64: each over many elements, since a
// call of assembly is not inlined. Elsewhere they do nothing, and the processor waits
// where the memory is read.
//
// They wait for nothing, read nothing that could be seen, and what is not there is no
// error. That they ask for the right lines shows in how long the look-ups behind them
// take (perf ladder), and nowhere else.
package prefetch

import "unsafe"

// Elements asks for the first cache line of the elements of s with these indexes.
func Elements[T any](s []T, indexes []uint32) {
	var element T
	elements(unsafe.Pointer(unsafe.SliceData(s)), unsafe.Sizeof(element), indexes)
}

// Hashed does the same for the elements that hashes lead to by their lowest bits. The
// length of s is a power of two.
func Hashed[T any](s []T, hashes []uint64) {
	var element T
	hashed(unsafe.Pointer(unsafe.SliceData(s)), unsafe.Sizeof(element), uint64(len(s)-1), hashes)
}
