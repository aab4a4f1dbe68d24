package steer

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// room is struct room of bpf/steer.c.
type room struct {
	given   atomic.Uint32
	excess  atomic.Uint32
	refused atomic.Uint64
	_       [6]uint64

	taken atomic.Uint32
	size  atomic.Uint32
	_     [7]uint64
}

// Room keeps more frames from being given to a queue's AF_XDP socket than it can
// take. The socket would drop them as well. But while it does so on one CPU, the
// worker that sends through it on another one waits for the cache lines that
// receiving and sending share (struct xsk_buff_pool and struct xdp_sock in the
// Linux source), and under overload that was a quarter of its time.
//
// The program counts what it gives the socket, the worker what it takes. Some of
// what was given may never arrive, so when nothing is left the worker calls it
// even; and the program tries one frame in 64 for which there seems to be no room,
// so that a worker that sleeps is woken. Took and Even are for the worker alone.
type Room struct {
	mem    []byte // the pages of the map that the queue's entry is in; nil once unmapped
	shared *room  // in mem
	taken  uint32 // our copy, which nobody else writes
	before uint64 // frames refused before it was opened
}

// OpenRoom says that size frames may be on their way to the socket of a queue or
// wait in it, and maps what the program and the worker have to tell each other.
// Close lifts the limit.
func (f *Filter) OpenRoom(queue, size int) (*Room, error) {
	rooms := f.objects.Maps[steerMapRooms]
	if queue < 0 || queue >= int(rooms.MaxEntries()) {
		return nil, fmt.Errorf("limit what queue %d receives: there are %d queues at most", queue, rooms.MaxEntries())
	}
	page := os.Getpagesize() // a multiple of an entry's size
	at := queue * int(unsafe.Sizeof(room{}))
	mem, err := unix.Mmap(rooms.FD(), int64(at/page*page), page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("limit what queue %d receives: map: %w", queue, err)
	}
	r := &Room{mem: mem, shared: (*room)(unsafe.Pointer(&mem[at%page]))}
	r.before = r.shared.refused.Load()
	r.Even()
	r.shared.size.Store(uint32(size))
	return r, nil
}

// Took says that n frames have been received.
func (r *Room) Took(n int) {
	r.taken += uint32(n)
	r.shared.taken.Store(r.taken)
}

// Even says that nothing is left to receive. What is on its way at this moment
// is not counted, so a little more than size may come once.
func (r *Room) Even() {
	if given := r.shared.given.Load(); given != r.taken {
		r.taken = given
		r.shared.taken.Store(given)
	}
}

// Refused returns how many frames found no room. Any goroutine may call it, but
// not while Close runs.
func (r *Room) Refused() uint64 { return r.shared.refused.Load() - r.before }

// Close lifts the limit. It may be called twice.
func (r *Room) Close() error {
	if r.mem == nil {
		return nil
	}
	r.shared.size.Store(0)
	mem := r.mem
	r.mem, r.shared = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap the room of a queue: %w", err)
	}
	return nil
}
