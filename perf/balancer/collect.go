package balancer

import (
	"context"
	"runtime"
)

// ballast is as large and as full of pointers as what a control plane with many
// backends keeps: the collector goes through all of it each time.
type ballast struct {
	next *ballast
	_    [ballastSize - 8]byte
}

const ballastSize = 128 // bytes

// collect has the collector at work all the time, over a live heap of so many bytes,
// until ctx ends. A control plane does this for some milliseconds when enough has
// changed; what its workers feel of it is felt always here.
func collect(ctx context.Context, bytes int) {
	heap := make([]*ballast, bytes/ballastSize)
	for i := range heap {
		heap[i] = &ballast{next: heap[i/2]}
	}
	for ctx.Err() == nil {
		runtime.GC()
	}
	runtime.KeepAlive(heap)
}
