//go:build !amd64 && !arm64

package prefetch

import "unsafe"

func elements(unsafe.Pointer, uintptr, []uint32) {}

func hashed(unsafe.Pointer, uintptr, uint64, []uint64) {}
