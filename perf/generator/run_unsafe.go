package generator

import (
	"math"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// From linux/bpf.h.
const (
	bpfProgTestRun = 10
	liveFrames     = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
)

// testRunAttr is the member "test" of union bpf_attr (linux/bpf.h).
type testRunAttr struct {
	program    uint32
	_          uint32 // retval
	dataSizeIn uint32
	_          uint32 // data_size_out
	dataIn     unsafe.Pointer
	_          uint64 // data_out
	repeat     uint32
	_          uint32 // duration
	ctxSizeIn  uint32
	ctxSizeOut uint32
	ctxIn      uint64
	ctxOut     uint64
	flags      uint32
	cpu        uint32
	batchSize  uint32
	_          uint32
}

// runLive runs the program on live frames, so many at a time, until a signal
// comes: EINTR. The
// library's own call starts again after a signal, so it could not be stopped.
func runLive(program *ebpf.Program, frame []byte, batch int) error {
	attr := testRunAttr{
		program:    uint32(program.FD()),
		dataSizeIn: uint32(len(frame)),
		dataIn:     unsafe.Pointer(unsafe.SliceData(frame)),
		repeat:     math.MaxInt32,
		flags:      liveFrames,
		batchSize:  uint32(batch),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(program)
	if errno != 0 {
		return errno
	}
	return nil
}

// interrupt sends a thread of this process a signal that means nothing to
// anybody (the Go runtime's own, for preemption) until ended is closed: one
// that comes before the system call does is lost.
func interrupt(thread int, ended <-chan struct{}) {
	for {
		_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG) // ESRCH: it has just ended
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
		}
	}
}
