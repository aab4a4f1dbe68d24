package splice

import (
	"errors"
	"sync/atomic"

	"weir/dataplane/forward"
	"weir/dataplane/queue"
)

// most is how many frames are moved at a time.
const most = forward.BatchSize

// spliced is a queue that receives by one queue and sends by another. Frames that
// its user holds are those of in.
type spliced struct {
	queue.Queue // in: Receive, Alloc, Release, Wake and Wait are its
	out         queue.Queue
	frames      [most]queue.Frame // of out, empty between two calls of Send
	givenUp     atomic.Uint64     // without asking out; written by the worker
}

// New makes one queue of two, which it owns. out is to be one that is always
// ready to send, as nobody waits for it.
func New(in, out queue.Queue) queue.Queue { return &spliced{Queue: in, out: out} }

// Send copies each frame into one of the queue that sends. What that has no
// buffers for is given up.
func (s *spliced) Send(frames []queue.Frame) (sent int, err error) {
	for len(frames) > 0 && err == nil {
		batch := frames[:min(len(frames), most)]
		frames = frames[len(batch):]
		var n int
		n, err = s.send(batch)
		sent += n
	}
	if len(frames) > 0 {
		s.Release(frames)
		s.givenUp.Add(uint64(len(frames)))
	}
	return sent, err
}

func (s *spliced) send(frames []queue.Frame) (int, error) {
	n := s.out.Alloc(s.frames[:len(frames)])
	for i := range s.frames[:n] {
		f := &s.frames[i]
		f.End = f.Start + uint32(copy(f.Buf[f.Start:], frames[i].Bytes()))
	}
	s.Release(frames)
	if n < len(frames) {
		s.givenUp.Add(uint64(len(frames) - n))
	}
	return s.out.Send(s.frames[:n])
}

// Stats adds up what both have lost.
func (s *spliced) Stats() queue.Stats {
	in, out := s.Queue.Stats(), s.out.Stats()
	in.TransmitDropped += out.TransmitDropped + s.givenUp.Load()
	return in
}

// Close closes both queues.
func (s *spliced) Close() error { return errors.Join(s.out.Close(), s.Queue.Close()) }
