package afpacket

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// sendBatch is how many frames one sendmmsg(2) takes.
const sendBatch = 256

// sender is the arguments of sendmmsg(2), made once: message i sends what
// vector i points to, to the interface that the socket is bound to.
type sender struct {
	vectors  [sendBatch]unix.Iovec
	messages [sendBatch]unix.Mmsghdr
}

func newSender() *sender {
	s := new(sender)
	for i := range s.messages {
		s.messages[i].Hdr.Iov = &s.vectors[i]
		s.messages[i].Hdr.SetIovlen(1)
	}
	return s
}

// load points the first messages to frames, at most sendBatch of them. It
// returns how many.
func (s *sender) load(frames []queue.Frame) int {
	n := min(len(frames), sendBatch)
	for i := range frames[:n] {
		f := &frames[i]
		s.vectors[i].Base = &f.Buf[f.Start]
		s.vectors[i].SetLen(f.Len())
	}
	return n
}

// send sends messages from to to-1, and returns how many of them the kernel
// took. The errno is about the first of them, and zero if that one was taken. It
// never blocks, so the Go scheduler is told nothing of it.
func (s *sender) send(fd, from, to int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&s.messages[from])), uintptr(to-from), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
