package afxdp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is the packet memory of one socket (its UMEM), cut into frames of
// equal size. A frame's name is its address: its offset in the memory.
type memory struct {
	mem       []byte // nil once unmapped
	base      unsafe.Pointer
	frameSize uint64 // power of two
}

func mapMemory(frames, frameSize int) (memory, error) {
	mem, err := unix.Mmap(-1, 0, frames*frameSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return memory{}, fmt.Errorf("map %d frames of %d bytes: %w", frames, frameSize, err)
	}
	// A wish: without huge pages only the TLB misses more.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return memory{mem: mem, base: unsafe.Pointer(unsafe.SliceData(mem)), frameSize: uint64(frameSize)}, nil
}

// frame returns the buffer of the frame at address id, which has come from the
// kernel or the free list and is not checked.
func (m *memory) frame(id uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(m.base, id)), m.frameSize)
}

// register makes the memory the UMEM of socket fd.
func (m *memory) register(fd int) error {
	reg := unix.XDPUmemReg{
		Addr: uint64(uintptr(m.base)),
		Len:  uint64(len(m.mem)),
		Size: uint32(m.frameSize),
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if errno != 0 {
		return fmt.Errorf("register %d bytes of packet memory%s: %w", len(m.mem), memoryFix(errno), errno)
	}
	return nil
}

// unmap may be called twice.
func (m *memory) unmap() error {
	if m.mem == nil {
		return nil
	}
	mem := m.mem
	m.mem, m.base = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap packet memory: %w", err)
	}
	return nil
}
