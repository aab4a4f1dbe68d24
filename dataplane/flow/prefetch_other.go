//go:build !amd64 && !arm64

package flow

// Elsewhere the processor waits where the memory is read.

func prefetchHeaders(*set, uint64, []uint64) {}

func prefetchEntries(*set, []uint32) {}
